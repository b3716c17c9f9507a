"""The sandbox as pytest fixtures: each starts a stand-in on a free port of the loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from deployments.sandbox.own_app.serving import OwnAppHost, RunningOwnApp


@pytest.fixture(scope="session")
def own_app_host() -> Iterator[OwnAppHost]:
    """The server on which `own_app` is set up anew for each test."""
    from deployments.sandbox.own_app.serving import OwnAppHost

    with OwnAppHost() as host:
        yield host


@pytest.fixture
def own_app(own_app_host: OwnAppHost, tmp_path: Path) -> Iterator[RunningOwnApp]:
    """The user's own application, empty, with helpers to switch its behaviour and count calls."""
    with own_app_host.serving(tmp_path / "own_app.db") as running:
        yield running
