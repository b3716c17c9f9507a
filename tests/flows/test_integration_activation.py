"""Activation as a whole: Prefect server, gateway process, GitHub that really calls."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography.fernet import Fernet
from prefect.client.orchestration import get_client
from prefect.events import DeploymentTriggerTypes
from pydantic import TypeAdapter

from blocks.http_api import BearerAuth, HttpApi
from deployments.activate import main
from deployments.prefect_file import read_deployments
from flows.github_events.flow import github_events
from flows.integration_activation.flow import (
    activate_integration,
    check_registrations,
    deactivate_integration,
)
from sandbox.gateway_process import running_gateway
from tasks.core.intake.inbox.notification import waiting_event
from tasks.core.intake.inbox.operations import DeliveryFilter

# Prefect's own clients leave sockets to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

PROJECT = Path(__file__).parents[2]
DECLARATION = PROJECT / "flows" / "github_events" / "integration.yaml"


@pytest.fixture
def github(inbox, github_api, monkeypatch):
    """GitHub, with the block that leads to it; a new key for secrets."""
    monkeypatch.setenv("INTEGRATIONS_SECRETS_KEY", Fernet.generate_key().decode())
    monkeypatch.setenv("GITHUB_EVENTS_REPOSITORY", github_api.repository)
    monkeypatch.delenv("GITHUB_WEBHOOK_SECRET", raising=False)
    github_api.block().save("github", overwrite=True)
    return github_api


@pytest.fixture
def gateway(github, tmp_path):
    """A gateway that has no secret yet."""
    with running_gateway(
        DECLARATION, tmp_path, os.environ["INTEGRATIONS_DATABASE_URL"], {}
    ) as running:
        yield running


@pytest.fixture
def deployment(prefect_server):
    """The integration's deployment, with the trigger that prefect.yaml gives it."""
    declared = read_deployments()
    [entry] = [each for each in declared if each["name"] == "github-events"]
    [trigger] = [
        TypeAdapter(DeploymentTriggerTypes).validate_python(each) for each in entry["triggers"]
    ]

    async def make():
        async with get_client() as client:
            flow_id = await client.create_flow(github_events)
            id_ = await client.create_deployment(flow_id, entry["name"], tags=entry["tags"])
            trigger.set_deployment_id(id_)
            return id_, await client.create_automation(trigger.as_automation())

    async def look(id_, automation_id):
        async with get_client() as client:
            deployment = await client.read_deployment(id_)
            automation = await client.read_automation(automation_id)
            return (not deployment.paused, automation.enabled)

    ids = asyncio.run(make())
    return SimpleNamespace(ids=ids, look=lambda: asyncio.run(look(*ids)))


def activate(runs, gateway):
    return runs.start(activate_integration, integration="github_events", public_url=gateway.url)


def test_github_calls_once_it_is_activated(runs, gateway, github, inbox, deployment):
    """The ping at creation and the events after it are taken, signed with the stored secret."""
    assert deployment.look() == (True, True)
    state = activate(runs, gateway)
    assert state.message == "1 created; switched on: github-events"
    (artifact,) = runs.artifacts()
    assert "the ping arrived: we answered 202" in str(artifact.data)
    assert set(inbox.statuses().values()) == {"received"}
    github.hooks.tell("push", {"ref": "refs/heads/main"})
    for _ in range(200):
        events = [each.event for each in inbox.operations.select(DeliveryFilter())]
        if "push" in events:
            break
        asyncio.run(asyncio.sleep(0.05))
    assert "push" in events


def test_deactivated_it_is_off_and_activated_it_is_on(runs, gateway, github, deployment):
    """Schedules and triggers follow; twice is fine; data stays."""
    activate(runs, gateway)
    state = runs.start(deactivate_integration, integration="github_events")
    assert state.message == "1 removed; switched off: github-events"
    assert (deployment.look(), github.hooks.hooks) == ((False, False), {})
    state = runs.start(deactivate_integration, integration="github_events")
    assert state.message == "nothing to register; switched off: github-events"
    assert activate(runs, gateway).message == "1 created; switched on: github-events"
    assert deployment.look() == (True, True)
    assert activate(runs, gateway).message == "1 kept; switched on: github-events"


def test_the_daily_check_mends_what_github_has_removed(runs, gateway, github):
    """Only what is active is looked after."""
    activate(runs, gateway)
    assert runs.start(check_registrations).message == "all is as it should be"
    github.hooks.hooks.clear()
    assert runs.start(check_registrations).message == "mended: github_events/repository created"
    assert len(github.hooks.hooks) == 1
    runs.start(deactivate_integration, integration="github_events")
    assert runs.start(check_registrations).message == "all is as it should be"
    assert github.hooks.hooks == {}


def test_what_cannot_be_registered_is_told_and_not_switched_on(runs, gateway, github, deployment):
    """The run fails with the reason; a retry goes on."""
    github.block(auth=BearerAuth(token="wrong")).save("github", overwrite=True)
    state = activate(runs, gateway)
    assert state.is_failed()
    assert "not switched on, because not all is registered: repository: " in state.message
    assert "refuses the credentials" in state.message
    assert "wrong" not in state.message
    github.block().save("github", overwrite=True)
    assert runs.retry(activate_integration).message == "1 created; switched on: github-events"


def test_the_daily_check_ends_what_an_activation_began(runs, gateway, github, deployment):
    """What it registers in the end is switched on, once: a pause by hand stays."""
    assert runs.start(deactivate_integration, integration="github_events").is_completed()
    github.block(auth=BearerAuth(token="wrong")).save("github", overwrite=True)
    assert activate(runs, gateway).is_failed()
    assert runs.start(check_registrations).is_failed()
    assert deployment.look() == (False, False)
    github.block().save("github", overwrite=True)
    state = runs.start(check_registrations)
    assert state.message == "mended: github_events/repository created; github_events switched on"
    assert deployment.look() == (True, True)
    asyncio.run(pause(deployment.ids[0]))
    assert runs.start(check_registrations).message == "all is as it should be"
    assert deployment.look() == (False, True)


def test_a_missing_block_is_told_and_removes_nothing(runs, gateway, github):
    """What is registered stays until the block is there again."""
    activate(runs, gateway)
    HttpApi.delete("github")
    state = activate(runs, gateway)
    assert state.message.startswith(
        "not activated: Prefect: load block 'http-api/github': there is no such block"
    )
    assert "repository: Prefect: load block" in runs.start(check_registrations).message
    assert len(github.hooks.hooks) == 1
    github.block().save("github", overwrite=True)
    assert runs.retry(check_registrations).message == "all is as it should be"


def test_without_its_blocks_it_does_not_become_active(runs, gateway, github):
    """Nothing looks after it every day, and fails."""
    HttpApi.delete("github")
    assert activate(runs, gateway).is_failed()
    assert runs.start(check_registrations).message == "all is as it should be"


def test_a_ping_that_does_not_arrive_fails_the_activation(runs, gateway, github):
    """Registered at a URL that nobody hears: said, with what to look at."""
    state = runs.start(
        activate_integration, integration="github_events", public_url="http://127.0.0.1:9"
    )
    assert "the ping did not arrive: it heard 502" in state.message


def test_without_a_public_url_it_says_what_to_give(runs, github, monkeypatch):
    """Nothing is registered at a guess."""
    monkeypatch.delenv("INTEGRATIONS_PUBLIC_URL", raising=False)
    state = runs.start(activate_integration, integration="github_events")
    assert "give public_url or set INTEGRATIONS_PUBLIC_URL" in state.message
    assert github.hooks.hooks == {}


def test_the_command_line_activates_and_keeps_off_what_was_deactivated(
    runs, gateway, github, deployment, capsys, monkeypatch
):
    """What a deploy runs: all that is deployed and registers, but not what somebody took back."""
    undeployed = PROJECT / "flows" / "salesforce_crm" / "integration.yaml"
    monkeypatch.setenv("INTEGRATIONS_ENDPOINTS", f"{DECLARATION}{os.pathsep}{undeployed}")
    monkeypatch.setenv("INTEGRATIONS_PUBLIC_URL", gateway.url)
    assert main(["--all"]) == 0
    told = capsys.readouterr().out
    assert "github_events: Completed, 1 created" in told
    assert "salesforce_crm: is not deployed: nothing is registered" in told
    assert main(["--deactivate", "github-events"]) == 0
    asyncio.run(resume(deployment.ids[0]))  # as a deploy does
    assert main(["--all"]) == 0
    assert "github_events: stays switched off" in capsys.readouterr().out.splitlines()
    assert (deployment.look(), github.hooks.hooks) == ((False, False), {})
    assert main(["github_events"]) == 0
    assert (deployment.look(), len(github.hooks.hooks)) == ((True, True), 1)


def test_a_name_that_is_none_is_told(runs, github):
    """With those that there are; nothing is made of it."""
    for flow in (activate_integration, deactivate_integration):
        state = runs.start(flow, integration="github_event")
        assert "there is no such integration; there are " in state.message


async def pause(deployment_id):
    async with get_client() as client:
        await client.pause_deployment(deployment_id)


async def resume(deployment_id):
    async with get_client() as client:
        await client.resume_deployment(deployment_id)


def test_an_integration_s_inbox_events_are_found_by_its_tag(prefect_server):
    """The same filter as for its runs finds what its inbox announces."""

    async def found():
        async with get_client() as client:
            event = waiting_event("github_events")
            await client.request("POST", "/events", json=[event])
            related = {"related": {"id": ["prefect.tag.github-events"]}}
            for _ in range(100):  # events are recorded a moment later
                response = await client.request("POST", "/events/filter", json={"filter": related})
                if any(each["id"] == event["id"] for each in response.json()["events"]):
                    return True
                await asyncio.sleep(0.1)
            return False

    assert asyncio.run(found())
