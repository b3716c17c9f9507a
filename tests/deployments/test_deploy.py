"""What is deployed, and what is said when it cannot be."""

from __future__ import annotations

import pytest
import yaml
from prefect.settings import PREFECT_API_URL, temporary_settings

from blocks.errors import MisconfiguredError
from deployments import deploy, register_blocks
from deployments.deploy import deployments_of, in_present_form
from deployments.prefect_file import PREFECT_FILE
from sandbox.systems.scripted_api import ScriptedReply

# Prefect's own clients leave sockets to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

OPERATING = {
    "callback-sending",
    "check-registrations",
    "list-dead-letters",
    "purge-deliveries",
    "replay-deliveries",
    "set-import-cursor",
    "show-import-cursors",
    "sweep-inbox",
}


def test_only_chosen_integrations_and_what_operates_them_are_deployed():
    """A user of two gets no schedule of the others; names may have dashes."""
    assert set(deployments_of(["github_events", "orders-import"])) == OPERATING | {
        "activate-github-events",
        "deactivate-github-events",
        "github-events",
        "orders-import",
    }


def test_what_operates_the_others_belongs_to_none():
    """Its schedules need no block of another system."""
    assert set(deployments_of([])) == OPERATING


def test_an_integration_that_is_none_is_told():
    """With those that there are; nothing is deployed."""
    with pytest.raises(MisconfiguredError, match=r"no such integration; there are .*github_events"):
        deployments_of(["github"])


COMMANDS = pytest.mark.parametrize("main", [deploy.main, register_blocks.main])


@COMMANDS
def test_nothing_is_brought_to_a_server_that_nobody_named(main, capsys):
    """Prefect would start one that is gone afterwards."""
    with temporary_settings(updates={PREFECT_API_URL: None}):
        assert main([]) == 1
    assert "set PREFECT_API_URL" in capsys.readouterr().err


@COMMANDS
def test_a_server_that_does_not_answer_is_told(main, capsys):
    """In a line, with its address."""
    with temporary_settings(updates={PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        assert main([]) == 1
    told = capsys.readouterr().err
    assert "http://127.0.0.1:9/api: connect: it does not answer" in told
    assert len(told.splitlines()) == 1


@COMMANDS
def test_a_server_that_refuses_is_told(main, scripted_api, capsys):
    """With what to set."""
    scripted_api.answer(*[ScriptedReply(status=401)] * 3)
    with temporary_settings(updates={PREFECT_API_URL: f"{scripted_api.url}/api"}):
        assert main([]) == 1
    assert "it answers 401: set PREFECT_API_KEY or PREFECT_API_AUTH_STRING" in (
        capsys.readouterr().err
    )


def test_a_prefect_yaml_of_former_versions_deploys_under_present_names():
    """Parameters of one's own are rewritten; what has nothing to rewrite stays as it is."""
    former = {
        "name": "mine",
        "deployments": [
            {"name": "a", "parameters": {"draining": {"linger_s": 5, "lease_s": 9}, "payload": 1}},
            {"name": "b", "parameters": {"pick_up": {"include": ["*.csv"]}}},
            {"name": "c"},
        ],
    }
    assert in_present_form(former) == {
        "name": "mine",
        "deployments": [
            {
                "name": "a",
                "parameters": {
                    "payload": 1,
                    "consumer": {"idle_timeout_s": 5, "advanced": {"lease_s": 9}},
                },
            },
            {"name": "b", "parameters": {"selection": {"include": ["*.csv"]}}},
            {"name": "c"},
        ],
    }
    present = yaml.safe_load(PREFECT_FILE.read_text())
    assert in_present_form(present) == present
