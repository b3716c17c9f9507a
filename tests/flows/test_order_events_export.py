"""The export of order events as a whole: own app, inbox, Prefect server and the other system."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from blocks.http_api import ApiKeyAuth, HttpApi
from deployments.prefect_file import read_deployments
from flows.order_events_export.flow import order_events_export
from sandbox.systems import fulfilment_api
from tasks.core.intake.inbox.operations import DeliveryFilter

# Prefect's own clients leave sockets to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

PROJECT = Path(__file__).parents[2]
SAMPLES = PROJECT / "flows" / "order_events_export" / "samples"
DEPLOYED = next(each for each in read_deployments() if each["name"] == "order-events-export")[
    "parameters"
]
QUICK = {
    **DEPLOYED,
    "consumer": {"idle_timeout_s": 0, "retry_delays_s": [0.01], "concurrency": 4},
}
ORDER = {
    "order_no": "SO-1",
    "customer": "Ann",
    "ordered_at": "2026-01-31T12:00:00Z",
    "status": "paid",
    "total": "3.00",
    "currency": "EUR",
    "lines": [{"sku": "W-1", "quantity": 2, "unit_price": "1.50"}],
}


@pytest.fixture
def fulfilment():
    with fulfilment_api.start() as running:
        yield running


@pytest.fixture
def place(own_app, fulfilment, runs, inbox, own_app_events):
    """Both systems are known to Prefect, and own app tells of its orders."""
    HttpApi(base_url=f"{own_app.base_url}/api/v1", auth=ApiKeyAuth(key=own_app.api_key)).save(
        "own-app", overwrite=True
    )
    fulfilment.block().save("fulfilment", overwrite=True)
    own_app_events.subscribe("order_events_export", "order", key="order_no")


@pytest.fixture
def relay(own_app_events):
    """Stores what own app has sent since as deliveries; returns their ids."""
    return own_app_events.relay


def store(inbox, event):
    return inbox.deliver(
        "order_events_export", event, event=event["type"], ordering_key=event["data"]["order_no"]
    )


def put(own_app, **changes):
    order = {**ORDER, **changes}
    own_app.http.put(f"/api/v1/orders/{order['order_no']}", json=order).raise_for_status()


def sample(name):
    return json.loads((SAMPLES / f"{name}.json").read_text())


def external_ids(own_app, order_no="SO-1"):
    return own_app.http.get(f"/api/v1/orders/{order_no}").json()["external_ids"]


def test_paid_order_is_shipped_and_its_id_comes_back(place, runs, relay, own_app, fulfilment):
    """Filtered, transformed, sent, and the other side's id is written to the order."""
    put(own_app)
    [paid] = relay(1)
    state = runs.start(order_events_export, **QUICK)
    assert (state.is_completed(), state.message) == (True, "1 done"), state.message
    assert runs.tasks() == {f"order.created {paid}": "Completed"}
    assert fulfilment.shipments == {
        "SO-1": {
            "id": "F-100001",
            "reference": "SO-1",
            "status": "accepted",
            "recipient": "Ann",
            "value": "3.00",
            "currency": "EUR",
            "parcels": [{"sku": "W-1", "pieces": 2}],
        }
    }
    assert external_ids(own_app) == {"fulfilment": "F-100001"}
    assert [effect.idempotency_key for effect in fulfilment.effects] == [paid]


def test_order_that_no_rule_wants_is_ignored(place, runs, relay, own_app, fulfilment):
    """An open order is not exported, and its task run says why."""
    put(own_app, status="open")
    [opened] = relay(1)
    state = runs.start(order_events_export, **QUICK)
    assert state.message == "1 ignored"
    assert runs.tasks() == {f"order.created {opened}": "Ignored"}
    assert fulfilment.attempts == 0


def test_own_change_does_not_go_round(place, runs, relay, own_app, fulfilment):
    """The id that is written back makes an event, which ends there."""
    put(own_app)
    relay(1)
    runs.start(order_events_export, **QUICK)
    [echo] = relay(1)
    state = runs.start(order_events_export, **QUICK)
    assert state.message == "1 ignored"
    assert runs.tasks() == {f"order.updated {echo}": "Ignored"}
    assert len(fulfilment.effects) == 1


def test_cancelled_and_deleted_orders_are_not_shipped(place, runs, relay, own_app, fulfilment):
    """A cancellation and a deletion withdraw the shipment; one that never was is no trouble."""
    for number in (1, 2):
        put(own_app, order_no=f"SO-{number}")
    relay(2)
    runs.start(order_events_export, **QUICK)
    relay(2)  # our own changes
    own_app.http.patch("/api/v1/orders/SO-1", json={"status": "cancelled"})
    own_app.http.delete("/api/v1/orders/SO-2")
    put(own_app, order_no="SO-3", status="cancelled")
    relay(3)
    state = runs.start(order_events_export, **QUICK)
    assert (state.is_completed(), state.message) == (True, "3 done, 2 ignored"), state.message
    assert fulfilment.shipments == {}


def place_reason(runs):
    [artifact] = runs.artifacts()
    return json.loads(artifact.data)[0]["Why"]


def test_invalid_fields_are_named_as_the_other_side_names_them(
    place, runs, relay, own_app, fulfilment
):
    """The named fields of a 422 stand in the reason."""
    put(own_app, currency="CHF")
    relay(1)
    assert runs.start(order_events_export, **QUICK).is_failed()
    assert "currency: Input should be 'EUR', 'GBP' or 'USD'" in place_reason(runs)


def test_wrong_credentials_are_not_tried_again(place, runs, relay, own_app, fulfilment):
    """A 401 dead-letters at once and says what to mend; no secret is told."""
    fulfilment.token = "another"
    put(own_app)
    relay(1)
    state = runs.start(order_events_export, **QUICK)
    assert state.is_failed()
    assert "it refuses the credentials; mend them in the block" in place_reason(runs)
    assert "sandbox-fulfilment-token" not in state.message


def test_late_event_sends_the_order_as_it_is_now(place, runs, relay, own_app, fulfilment, inbox):
    """A delivery that is handled late, or replayed, never sends an old state."""
    put(own_app)
    [old] = relay(1)
    put(own_app, customer="Bob")
    [new] = relay(1)
    state = runs.start(order_events_export, **QUICK)
    assert state.message == "1 done, 1 ignored"
    relay(1)
    inbox.operations.replay(DeliveryFilter(ids=(old,)), dry_run=False, new_effects=True)
    runs.start(order_events_export, **QUICK)
    assert [effect.idempotency_key for effect in fulfilment.effects] == [new]
    assert fulfilment.shipments["SO-1"]["recipient"] == "Bob"


def test_event_that_breaks_its_schema_is_dead_lettered(place, runs, inbox, fulfilment):
    """What own app never promised to send is refused, saying where."""
    event = sample("order_without_total")
    store(inbox, event)
    assert runs.start(order_events_export, **QUICK).is_failed()
    assert "it is not as its sender publishes it: data: total is missing" in place_reason(runs)
    assert fulfilment.attempts == 0


def test_template_mistake_is_dead_lettered_with_its_place(place, runs, relay, own_app, fulfilment):
    """A template that names a field the order has not is said by place; nothing is sent."""
    rule = {
        "when": {"data.status": "paid"},
        "request": {"method": "PUT", "path": "shipments/${data.number}"},
    }
    put(own_app)
    relay(1)
    assert runs.start(order_events_export, **{**QUICK, "rules": [rule]}).is_failed()
    assert "path: 'dict object' has no attribute 'number'" in place_reason(runs)
    assert fulfilment.attempts == 0
