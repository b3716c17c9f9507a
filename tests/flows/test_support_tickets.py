"""The hybrid of support tickets as a whole: own app, inbox, Prefect server and the helpdesk."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from blocks.http_api import ApiKeyAuth, HttpApi
from flows.support_tickets.flow import support_tickets_export, support_tickets_import
from flows.support_tickets.tickets import KIND
from sandbox.systems import helpdesk_api
from tasks.core.sync.api_import.cursors import Cursors
from tasks.core.sync.two_way.identity_map.pairs import IdentityMap

# Prefect's own clients leave sockets to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

QUICK = {"consumer": {"idle_timeout_s": 0, "retry_delays_s": [0.01], "concurrency": 4}}
TICKET = {
    "ticket_no": "T-1",
    "title": "Where is my parcel?",
    "description": "It should have come.",
    "status": "open",
    "priority": "high",
    "requester": "ann@example.com",
    "labels": ["shipping"],
}


@pytest.fixture
def helpdesk():
    with helpdesk_api.start() as running:
        yield running


@pytest.fixture
def place(own_app, helpdesk, runs, inbox, own_app_events):
    """Both systems are known to Prefect, and own app tells of its tickets."""
    HttpApi(
        base_url=f"{own_app.base_url}/api/v1",
        auth=ApiKeyAuth(key=own_app.api_key),
        first_wait_s=0.01,
    ).save("own-app", overwrite=True)
    helpdesk.block(first_wait_s=0.01).save("helpdesk", overwrite=True)
    own_app_events.subscribe("support_tickets", "ticket", key="ticket_no")


@pytest.fixture
def export(own_app_events, runs):
    """Lets so many events of own app be handled; returns how the run ended."""

    def export(events):
        own_app_events.relay(events)
        return runs.start(support_tickets_export, **QUICK)

    return export


@pytest.fixture
def import_(runs):
    """Runs the import; returns how the run ended."""
    return lambda: runs.start(support_tickets_import, import_retries=0)


def put(own_app, **changes):
    ticket = {**TICKET, **changes}
    path = f"/api/v1/tickets/{ticket['ticket_no']}"
    own_app.http.put(path, json=ticket).raise_for_status()


def ticket_of(own_app, ticket_no="T-1"):
    return own_app.http.get(f"/api/v1/tickets/{ticket_no}").json()


def why(runs):
    return json.loads(runs.artifacts()[0].data)[0]["Why"]


def test_ticket_goes_to_the_helpdesk_and_its_status_comes_back(
    place, export, import_, own_app, helpdesk
):
    """There by event, back by schedule, in each side's words, and neither direction goes round."""
    put(own_app)
    assert export(1).message == "1 done"
    [made] = helpdesk.tickets.values()
    assert {name: made[name] for name in ("subject", "body", "priority", "tags", "state")} == {
        "subject": "Where is my parcel?", "body": "It should have come.", "priority": 3,
        "tags": ["shipping"], "state": "new",
    }  # fmt: skip
    assert made["external_ref"] == "T-1"
    assert ticket_of(own_app)["external_ids"] == {"helpdesk": "7001"}
    assert export(1).message == "1 ignored"  # we told own app the id

    helpdesk.change(7001, state="resolved", assignee="Bo")
    import_()
    assert (ticket_of(own_app)["status"], ticket_of(own_app)["assignee"]) == ("solved", "Bo")
    writes = len(helpdesk.effects)
    assert export(1).message == "1 ignored"  # it came from the helpdesk
    assert import_().is_completed()
    assert len(helpdesk.effects) == writes == 1
    assert ticket_of(own_app)["version"] == 3


def test_ticket_that_began_at_the_helpdesk_comes_once(place, export, import_, own_app, helpdesk):
    """It is made in the application, does not go back, and follows from then on both ways."""
    helpdesk.add(subject="No sound", body="at all", priority=4, requester_email="bo@example.com")
    assert import_().message == "1 record in 1 page"
    made = ticket_of(own_app, "HD-7001")
    assert (made["title"], made["priority"], made["status"]) == ("No sound", "urgent", "open")
    assert made["external_ids"] == {"helpdesk": "7001"}
    assert export(1).message == "1 ignored"
    assert helpdesk.attempts == 0

    own_app.http.patch("/api/v1/tickets/HD-7001", json={"title": "No sound on Mondays"})
    assert export(1).message == "1 done"
    assert helpdesk.tickets[7001]["subject"] == "No sound on Mondays"
    assert len(helpdesk.tickets) == 1
    import_()
    assert len(own_app.records("tickets")) == 1
    assert ticket_of(own_app, "HD-7001")["version"] == 2


def test_change_on_both_sides_loses_neither(place, export, import_, own_app, helpdesk):
    """Each side decides its own fields: a change there and one here at once are both kept."""
    put(own_app)
    export(1)
    export(1)
    helpdesk.change(7001, state="waiting")
    own_app.http.patch("/api/v1/tickets/T-1", json={"title": "Where is it now?"})
    import_()
    assert export(2).message == "1 done, 1 ignored"
    assert (ticket_of(own_app)["title"], ticket_of(own_app)["status"]) == (
        "Where is it now?", "pending",
    )  # fmt: skip
    assert helpdesk.tickets[7001]["subject"] == "Where is it now?"
    assert helpdesk.tickets[7001]["state"] == "waiting"


def test_change_that_the_helpdesk_does_not_keep_is_not_sent(place, export, own_app, helpdesk):
    """What another export writes into a ticket concerns the helpdesk not."""
    put(own_app)
    export(1)
    export(1)
    own_app.http.patch("/api/v1/tickets/T-1", json={"external_ids": {"github": "a/b#1"}})
    assert export(1).message == "1 ignored"
    assert len(helpdesk.effects) == 1


def test_ticket_that_was_made_and_not_remembered_is_found(
    place, export, import_, own_app, helpdesk, inbox
):
    """A run killed between the helpdesk's answer and the record leaves no second ticket behind."""
    put(own_app)
    helpdesk.add(subject="Where is my parcel?", external_ref="T-1")  # and then it was killed
    import_()  # the import comes first: it knows whose ticket it is
    assert [each["ticket_no"] for each in own_app.records("tickets")] == ["T-1"]
    assert ticket_of(own_app)["external_ids"] == {"helpdesk": "7001"}
    assert export(2).message == "1 done, 1 ignored"
    assert list(helpdesk.tickets) == [7001]
    assert helpdesk.tickets[7001]["body"] == "It should have come."
    pair = IdentityMap(inbox.engine, KIND).find("left", "T-1")
    assert (pair.left, pair.right) == ("T-1", "7001")


def test_lost_identity_map_pairs_the_same_tickets_again(
    place, export, import_, own_app, helpdesk, inbox
):
    """Either side tells enough of the other: nothing is made twice without the map."""
    put(own_app)
    export(1)
    helpdesk.add(subject="No sound")
    import_()
    export(2)
    with inbox.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM identity_ids")
        connection.exec_driver_sql("DELETE FROM identity_pairs")
    for ticket_no in ("T-1", "HD-7002"):
        own_app.http.patch(f"/api/v1/tickets/{ticket_no}", json={"title": "Anew"})
    export(2)
    for id_ in (7001, 7002):
        helpdesk.change(id_, state="closed")
    import_()
    assert {each["subject"] for each in helpdesk.tickets.values()} == {"Anew"}
    assert len(helpdesk.tickets) == 2
    assert {each["ticket_no"]: each["status"] for each in own_app.records("tickets")} == {
        "T-1": "closed", "HD-7002": "closed",
    }  # fmt: skip


def test_deleted_ticket_is_deleted_there_and_does_not_come_back(
    place, export, import_, own_app, helpdesk
):
    """A deletion reaches the helpdesk; a ticket that it lists all the same is not made again."""
    put(own_app)
    export(1)
    own_app.http.delete("/api/v1/tickets/T-1")
    listed = dict(helpdesk.tickets)
    assert export(2).message == "1 done, 1 ignored"
    assert helpdesk.tickets == {}
    helpdesk.tickets.update(listed)
    helpdesk.change(7001, state="closed")
    import_()
    assert own_app.records("tickets") == []


def test_ticket_that_the_application_refuses_is_told_and_stops_no_other(
    place, import_, own_app, helpdesk, runs
):
    """A ticket that does not fit the application is a reject; the rest comes in."""
    helpdesk.add(subject="Good")
    helpdesk.add(subject="Bad", tags=["x"])
    helpdesk.tickets[7002]["requester_email"] = "no address"
    helpdesk.add(subject="Good, too")
    assert import_().message == "2 records in 1 page, 1 rejected"
    assert sorted(each["title"] for each in own_app.records("tickets")) == ["Good", "Good, too"]
    rejects = [each for each in runs.artifacts() if (each.key or "").endswith("rejects")]
    assert json.loads(rejects[0].data)[0]["Record"] == "7002"


def test_import_goes_on_where_it_failed(place, import_, own_app, helpdesk, runs):
    """While own app is down nothing is lost: Retry brings what is missing, once."""
    for number in range(120):
        helpdesk.add(subject=f"Ticket {number}")
    own_app.behave("error", status=500)
    assert import_().is_failed()
    own_app.behave("ok")
    state = runs.retry(support_tickets_import)
    assert state.is_completed(), state.message
    assert len(own_app.records("tickets")) == 120
    assert {each["version"] for each in own_app.records("tickets")} == {1}


def test_second_import_at_the_same_time_leaves_it_to_the_first(place, import_, inbox, helpdesk):
    """While another run is at the stream, a run ends well and says so."""
    helpdesk.add(subject="A")
    Cursors(inbox.engine).lease("helpdesk-tickets", owner="another")
    state = import_()
    assert state.is_completed()
    assert "run another is at it" in state.message


def test_ties_and_late_changes_are_not_lost(place, import_, own_app, helpdesk):
    """Changes of the same second, and one dated a minute back, come in with the next run."""
    now = datetime.now(UTC).replace(microsecond=0)
    helpdesk.clock = lambda: now
    helpdesk.add(subject="First")
    import_()
    helpdesk.add(subject="Same second")
    helpdesk.clock = lambda: now - timedelta(seconds=60)
    helpdesk.add(subject="Late")
    helpdesk.clock = lambda: now
    helpdesk.change(7001, state="closed")
    import_()
    assert {each["title"]: each["status"] for each in own_app.records("tickets")} == {
        "First": "closed", "Same second": "open", "Late": "open",
    }  # fmt: skip
