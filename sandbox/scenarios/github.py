"""GitHub, whose one repository sees a push now and then."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from sandbox.scenarios import Sandbox
from sandbox.send_sample import read_sample
from sandbox.systems import github_api

_PUSH_EVERY_S = 180


@contextmanager
def run(sandbox: Sandbox) -> Iterator[None]:
    """Serve; whoever has registered a webhook hears of pushes."""
    with github_api.start(port=sandbox.port("github")) as github:
        github.issues.cache_in(sandbox.data / "github-issues.json")
        sandbox.blocks["http-api/github"] = github.block()

        def push() -> None:
            github.hooks.tell("push", json.loads(read_sample("push").body))

        sandbox.every(_PUSH_EVERY_S, push)
        yield
