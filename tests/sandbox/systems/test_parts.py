"""What the sandbox's parts are given."""

from __future__ import annotations

from sandbox.scenarios import Sandbox
from sandbox.systems import github_api


def a_sandbox(folder):
    return Sandbox(data=folder, gateway=None, own_app="http://127.0.0.1:1", blocks={})


def test_a_part_is_found_where_it_was_last_time(tmp_path):
    """Who was registered with under an address answers there again, unless another is there."""
    first, other = (a_sandbox(tmp_path).port(name) for name in ("github", "crm"))
    assert first != other
    assert a_sandbox(tmp_path).port("github") == first
    with github_api.start(port=first):
        assert a_sandbox(tmp_path).port("github") != first
    assert a_sandbox(tmp_path).port("crm") == other
