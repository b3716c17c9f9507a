"""What every export of events promises: own app, inbox, Prefect server and the other system."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect import Flow

from blocks.http_api import ApiKeyAuth, HttpApi
from flows.crm_contacts.flow import crm_contacts_export
from flows.order_events_export.flow import order_events_export
from flows.support_tickets.flow import support_tickets_export
from flows.ticket_escalation.flow import ticket_escalation
from sandbox.systems import crm_api, fulfilment_api, github_api, helpdesk_api
from tasks.core.intake.inbox.operations import DeliveryFilter

# Prefect's own clients leave sockets to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

PROJECT = Path(__file__).parents[2]
FLOWS = PROJECT / "flows"
DEPLOYED = {
    each["name"]: each.get("parameters", {})
    for each in yaml.safe_load((PROJECT / "prefect.yaml").read_text())["deployments"]
}
QUICK = {"consumer": {"idle_timeout_s": 0, "retry_delays_s": [0.01], "concurrency": 4}}


@dataclass(frozen=True)
class Export:
    """One export and its other side.

    Attributes:
        flow: Handles the events.
        integration: Whose deliveries they are.
        samples: Where its sample events are.
        record: A record of own app that is exported; its key comes first.
        start: Starts the other side.
        block: What the other side's block is called.
        effects: What the other side has carried out.
        names: What the other side calls, or keeps of ours to name, each thing it has.
        told: What own app knows afterwards of the record there.
        replayed: How a run ends that handles a delivery once more.
        new_effects: Whether a replay may ask for new effects, and still makes none.
        parameters: Of the flow.
    """

    flow: Flow[..., Any]
    integration: str
    samples: Path
    record: dict[str, Any]
    start: Callable[..., Any]
    block: str
    effects: Callable[[Any], Any]
    names: Callable[[Any], list[str]]
    told: dict[str, str] | None
    replayed: str
    new_effects: bool = True
    parameters: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The field that names a record."""
        return next(iter(self.record))

    @property
    def resource(self) -> str:
        """What its records are, e.g. "order"."""
        return self.key.removesuffix("_no").removesuffix("_id")


ORDERS = Export(
    flow=order_events_export,
    integration="order_events_export",
    samples=FLOWS / "order_events_export/samples",
    record={
        "order_no": "X-1", "customer": "Ann", "ordered_at": "2026-01-31T12:00:00Z",
        "status": "paid", "total": "3.00", "currency": "EUR",
        "lines": [{"sku": "W-1", "quantity": 2, "unit_price": "1.50"}],
    },
    start=fulfilment_api.start,
    block="fulfilment",
    effects=lambda there: [effect.idempotency_key for effect in there.effects],
    names=lambda there: sorted(there.shipments),
    told={"fulfilment": "F-100001"},
    replayed="1 done",
    new_effects=False,  # these are a second request there, under a new key
    parameters=DEPLOYED["order-events-export"],
)  # fmt: skip
ESCALATION = Export(
    flow=ticket_escalation,
    integration="ticket_escalation",
    samples=FLOWS / "ticket_escalation/samples",
    record={
        "ticket_no": "X-1", "title": "It breaks", "description": "?", "status": "open",
        "labels": ["bug"],
    },
    start=github_api.start,
    block="github",
    effects=lambda there: [
        {name: value for name, value in issue.items() if name != "updated_at"}
        for issue in there.issues.issues.values()
    ],
    names=lambda there: [issue["title"] for issue in there.issues.issues.values()],
    told={"github": "example-shop/storefront#1"},
    replayed="1 done",
    parameters={"repository": "example-shop/storefront"},
)  # fmt: skip
TICKETS = Export(
    flow=support_tickets_export,
    integration="support_tickets",
    samples=FLOWS / "support_tickets/samples",
    record={
        "ticket_no": "X-1", "title": "Where is my parcel?", "description": "It should have come.",
        "status": "open", "priority": "high", "requester": "ann@example.com",
        "labels": ["shipping"],
    },
    start=helpdesk_api.start,
    block="helpdesk",
    effects=lambda there: list(there.tickets.values()),
    names=lambda there: sorted(each["external_ref"] for each in there.tickets.values()),
    told={"helpdesk": "7001"},
    replayed="1 ignored",
)  # fmt: skip
CONTACTS = Export(
    flow=crm_contacts_export,
    integration="crm_contacts_export",
    samples=FLOWS / "crm_contacts/samples/own-app-contacts",
    record={"contact_id": "X-1", "name": "Bea Satō", "email": "bea@example.com"},
    start=crm_api.start,
    block="crm",
    effects=lambda there: there.contacts.all(),
    names=lambda there: [each["properties"]["display_name"] for each in there.contacts.all()],
    told=None,
    replayed="1 ignored",
)


class Place:
    """Both sides of one export, and the runs between them."""

    def __init__(self, export, own_app, there, runs, events) -> None:
        self.export, self.own_app, self.there = export, own_app, there
        self.runs, self.events = runs, events

    def put(self, **changes):
        record = {**self.export.record, **changes}
        path = f"/api/v1/{self.export.resource}s/{record[self.export.key]}"
        self.own_app.http.put(path, json=record).raise_for_status()

    def run(self, **parameters):
        return self.runs.start(self.export.flow, **QUICK, **self.export.parameters, **parameters)

    def handle(self, *, events):
        """Let so many more events be handled; returns their deliveries and how the run ended."""
        return self.events.relay(events), self.run()

    def names(self):
        return self.export.names(self.there)

    def effects(self):
        return deepcopy(self.export.effects(self.there))

    def told(self):
        record = self.own_app.http.get(f"/api/v1/{self.export.resource}s/X-1").json()
        return record.get("external_ids")

    def reason(self):
        [artifact] = self.runs.artifacts()
        return json.loads(artifact.data)[0]["Why"]


@pytest.fixture
def place(request, own_app, runs, own_app_events):
    """Both systems are known to Prefect, and own app tells of its records."""
    export = request.param
    block = HttpApi(base_url=f"{own_app.base_url}/api/v1", auth=ApiKeyAuth(key=own_app.api_key))
    block.save("own-app", overwrite=True)
    with export.start() as there:
        there.block(first_wait_s=0.01).save(export.block, overwrite=True)
        own_app_events.subscribe(export.integration, export.resource, key=export.key)
        yield Place(export, own_app, there, runs, own_app_events)


def exports(*cases):
    """Parameters of which the first is an export; what else is text names the case."""
    return [
        pytest.param(*case, id=" ".join([case[0].block, *(c for c in case if isinstance(c, str))]))
        for case in cases
    ]


def with_place(*names, cases):
    return pytest.mark.parametrize(("place", *names), exports(*cases), indirect=["place"])


@with_place(cases=[(ORDERS,), (ESCALATION,), (TICKETS,), (CONTACTS,)])
def test_redelivery_has_no_second_effect(place, inbox):
    """A delivery that is handled once more changes nothing anywhere."""
    export = place.export
    place.put()
    [first], state = place.handle(events=1)
    assert state.message == "1 done"
    if export.told:
        assert place.handle(events=1)[1].message == "1 ignored"  # own app was told the id
    effects, records = place.effects(), place.own_app.records(f"{export.resource}s")
    assert effects == [first] if export is ORDERS else len(effects) == 1
    inbox.operations.replay(
        DeliveryFilter(ids=(first,)), dry_run=False, new_effects=export.new_effects
    )
    assert place.run().message == export.replayed
    assert place.effects() == effects
    assert place.own_app.records(f"{export.resource}s") == records


def set_faults(**faults):
    return lambda there: vars(there.faults).update(faults, remaining=1)


@with_place(
    "name",
    "fail",
    cases=[
        (ORDERS, "unavailable", set_faults(status=503)),
        (ORDERS, "busy", set_faults(status=429, retry_after_s=0)),
        (ORDERS, "broken", set_faults(status=500)),
        (ORDERS, "cut before", set_faults(lose_answer="not done")),
        (ORDERS, "cut after", set_faults(lose_answer="done")),
        (ESCALATION, "cut after", lambda there: setattr(there.issues, "lose_answers", 1)),
        (TICKETS, "cut before", set_faults(lose_answer="not done")),
        (TICKETS, "cut after", set_faults(lose_answer="done")),
        (CONTACTS, "unavailable", lambda there: there.fail_next.append(503)),
        (CONTACTS, "cut after", lambda there: there.fail_next.append(0)),
    ],
)
def test_transient_failure_is_tried_again(place, name, fail):
    """Busy, broken and cut answers are met with another attempt, of which nothing is twice."""
    fail(place.there)
    place.put()
    [first], state = place.handle(events=1)
    assert state.is_completed()
    # the second attempt at a contact finds it made, and has nothing to do
    found = place.export is CONTACTS and name == "cut after"
    assert state.message == ("1 ignored" if found else "1 done")
    effects = place.effects()
    assert effects == [first] if place.export is ORDERS else len(effects) == 1
    if place.export.told:
        assert place.told() == place.export.told
    if place.export is ORDERS:
        assert place.there.attempts == 2


BATTERY = [{"sku": "lithium-battery", "quantity": 1, "unit_price": "3.00"}]
LONE_REQUESTER = {"requester": "nobody@localhost"}


@with_place(
    "changes",
    "reason",
    cases=[
        (
            ORDERS,
            {"lines": BATTERY},
            (
                r".*PUT shipments/X-1 'X-1': it answered 422 Unprocessable Entity; correct the "
                "request; it says: lithium-battery cannot be sent by parcel service; correct the "
                "order, whose change is sent then, or replay once the other side takes it$"
            ),
        ),
        (
            TICKETS,
            LONE_REQUESTER,
            ".*it says: the ticket is not valid; requester_email: String should match",
        ),
    ],
)
def test_refused_record_is_parked_in_the_others_words(place, changes, reason):
    """A 4xx dead-letters the delivery with the reason; the others go on.

    Correcting the record is enough: its change is sent, and its old event then needs nothing.
    """
    place.put(**changes)
    place.put(**{place.export.key: "X-2"})
    assert place.handle(events=2)[1].is_failed()
    assert re.match(reason, place.reason(), re.DOTALL)
    assert place.names() == ["X-2"]
    assert place.there.attempts == 2, "no refusal is tried again"
    refused = place.runs.last

    place.put()
    assert place.handle(events=2)[1].message == "1 done, 1 ignored"  # own app was told X-2's id
    assert place.names() == ["X-1", "X-2"]
    effects = place.effects()
    if place.export is ORDERS:
        assert place.there.shipments["X-1"]["parcels"] == [{"sku": "W-1", "pieces": 2}]
    place.runs.last = refused
    assert place.runs.retry(place.export.flow).message == "1 ignored"
    assert place.effects() == effects


@with_place(
    "changes",
    "refuse",
    "take",
    cases=[
        (
            ORDERS,
            {"lines": BATTERY},
            lambda _there: None,
            lambda there: there.not_shipped.clear(),
        ),
        (
            ESCALATION,
            {},
            lambda there: setattr(there.issues, "refuse_with", 410),
            lambda there: setattr(there.issues, "refuse_with", None),
        ),
    ],
)
def test_refused_record_is_sent_by_a_retry(place, changes, refuse, take):
    """When the other side takes it after all, Retry of the failed run sends it."""
    refuse(place.there)
    place.put(**changes)
    assert place.handle(events=1)[1].is_failed()
    assert place.effects() == []
    take(place.there)
    state = place.runs.retry(place.export.flow)
    assert (state.is_completed(), state.message) == (True, "1 done")
    assert len(place.effects()) == 1
    assert place.told() == place.export.told
    if place.export is ORDERS:
        assert place.there.shipments["X-1"]["parcels"] == [{"sku": "lithium-battery", "pieces": 1}]


SAMPLES = [
    (ORDERS, "order_paid", "sample done: shipment F-100001"),
    (ORDERS, "order_open", "sample ignored: no rule wants it"),
    (ORDERS, "order_cancelled", "sample done"),
    (ORDERS, "order_not_shippable", ".*lithium-battery cannot be sent"),
    (ORDERS, "order_without_total", ".*data: total is missing"),
    (ESCALATION, "ticket_is_a_bug", "sample done: example-shop/storefront#1 is open"),
    (ESCALATION, "ticket_is_no_bug", "sample ignored: without the label 'bug'"),
    (ESCALATION, "ticket_bug_solved", "sample ignored: there is nothing to do"),
    (TICKETS, "ticket_opened", "sample done: helpdesk ticket 7001 made"),
    (TICKETS, "ticket_with_odd_requester", ".*requester_email: String should match"),
    (CONTACTS, "own-app-contact-updated", "sample ignored"),
]


@with_place("name", "message", cases=SAMPLES)
def test_every_sample_has_its_decided_outcome(place, name, message):
    """Each sample in the repository is exported, or ends as its name says."""
    if place.export is ORDERS:
        place.put(order_no="SO-1001", status="open")
    state = place.run(payload=json.loads((place.export.samples / f"{name}.json").read_text()))
    assert re.match(message, state.message, re.DOTALL), state.message


def test_every_sample_is_tried():
    """No sample lies about of which nobody says how it ends."""
    tried = {export.samples / f"{name}.json" for export, name, _ in SAMPLES}
    assert tried == {path for export, _, _ in SAMPLES for path in export.samples.glob("*.json")}
