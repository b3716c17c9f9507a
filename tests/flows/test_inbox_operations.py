"""The inbox as operators see it in the Prefect UI."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from prefect.client.orchestration import get_client

from flows.inbox_operations.flow import (
    list_dead_letters,
    purge_deliveries,
    replay_deliveries,
    sweep_inbox,
)
from tasks.core.intake.inbox.notification import EVENT_NAME, waiting_event
from tasks.core.intake.inbox.rows import LeaseOwner
from tasks.core.intake.inbox.settlement import Settlement
from tasks.core.intake.inbox.store import Inbox

# Prefect's own clients leave sockets to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")


def settle(inbox, status, reason="", *, clock=lambda: datetime.now(UTC)):
    store = Inbox(inbox.engine, clock=clock)
    for each in store.lease("orders", LeaseOwner("run"), limit=100):
        store.settle([Settlement(each, status, reason)])
    store.close()


def test_replay(runs, inbox):
    """A replay lists first, and does it when it is told to; dead-lettered ones by default."""
    done = inbox.deliver("orders", {}, event="created")
    settle(inbox, "done")
    dead_lettered = inbox.deliver("orders", {}, event="created")
    settle(inbox, "dead_letter", "unknown | item")
    state = runs.start(replay_deliveries, integration="orders")
    assert state.message == "1 deliveries would be replayed"
    assert inbox.statuses() == {done: "done", dead_lettered: "dead_letter"}
    [artifact] = runs.artifacts()
    assert "unknown \\| item" in artifact.data
    state = runs.start(replay_deliveries, ids=[done, dead_lettered], dry_run=False)
    assert state.message == "2 deliveries replayed"
    assert inbox.statuses() == {done: "received", dead_lettered: "received"}


def test_list_of_dead_letters(runs, inbox):
    """The list links each dead-lettered delivery to an artifact with its payload."""
    dead_lettered = inbox.deliver("orders", {"note": "```\n# no heading"}, event="created")
    settle(inbox, "dead_letter", "unknown item")
    state = runs.start(list_dead_letters)
    assert state.message == "1 deliveries are dead-lettered"
    payload, table = runs.artifacts()
    assert payload.key == f"delivery-{dead_lettered}"
    assert payload.data.startswith("````json\n{\n")
    assert f"[{dead_lettered}](" in table.data
    assert f"/artifacts/key/delivery-{dead_lettered})" in table.data
    assert "unknown item" in table.data


def test_purge(runs, inbox):
    """A purge counts first, and deletes when it is told to."""
    inbox.deliver("orders", {})
    settle(inbox, "done")
    long_ago = {"older_than_days": -1}
    assert runs.start(purge_deliveries, **long_ago).message == "1 deliveries would be deleted"
    assert len(inbox.statuses()) == 1
    state = runs.start(purge_deliveries, dry_run=False, **long_ago)
    assert state.message == "1 deliveries deleted"
    assert inbox.statuses() == {}


def test_sweeper(runs, inbox):
    """The sweeper notifies of what nobody is at work on, and for what is far behind."""
    assert runs.start(sweep_inbox).message == "nothing waits"
    inbox.deliver("orders", {})
    inbox.deliver("returns", {})
    assert runs.start(sweep_inbox).message == "notified: orders, returns"


async def test_waiting_event_is_what_triggers_match(prefect_server):
    """The event arrives at the server with the name and resource of the triggers."""
    async with get_client() as client:
        response = await client.request("POST", "/events", json=[waiting_event("orders")])
        assert response.status_code == 204
        since = (datetime.now(UTC) - timedelta(minutes=1)).isoformat()
        until = (datetime.now(UTC) + timedelta(minutes=1)).isoformat()
        body = {
            "filter": {
                "event": {"name": [EVENT_NAME]},
                "occurred": {"since": since, "until": until},
            }
        }
        for _ in range(100):
            response = await client.request("POST", "/events/filter", json=body)
            resources = [each["resource"] for each in response.json()["events"]]
            if {"prefect.resource.id": "inbox.orders"} in resources:
                return
    raise AssertionError(resources)
