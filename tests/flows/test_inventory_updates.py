"""Inventory updates as a whole: inbox, Prefect server and the application."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from blocks.errors import BadPayloadError
from blocks.http_api import ApiKeyAuth, HttpApi
from flows.inventory_updates.flow import inventory_updates
from flows.inventory_updates.updates import EVENT, apply_updates
from tasks.api import open_api
from tasks.core.intake.inbox.delivery import Delivery

# Prefect's own clients leave sockets to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

SAMPLES = Path(__file__).parents[2] / "flows" / "inventory_updates" / "samples"
QUICK = {"consumer": {"idle_timeout_s": 0, "retry_delays_s": [0.01], "concurrency": 4}}


@pytest.fixture(autouse=True)
def application(own_app):
    """The block for the application, which has two items."""
    for sku in ("widgets", "gadgets"):
        own_app.http.put(
            f"/api/v1/inventory/{sku}", json={"sku": sku, "name": sku, "quantity": 10}
        ).raise_for_status()
    own_app.forget_requests()
    return HttpApi(base_url=f"{own_app.base_url}/api/v1", auth=ApiKeyAuth(key=own_app.api_key))


@pytest.fixture
def place(application, runs, inbox):
    """The application is known to Prefect, and the inbox is empty."""
    application.save("own-app", overwrite=True)


@pytest.fixture
def apply(application):
    """Applies a payload as one delivery, without Prefect."""
    with open_api(application) as api:

        def apply(payload, *, event=EVENT, id_="d1"):
            sample = Delivery.sample(payload, event=event, integration="x", id=id_)
            return apply_updates(api, sample)

        yield apply


def sample(name):
    return json.loads((SAMPLES / f"{name}.json").read_text())


def stock(own_app):
    return {record["sku"]: record["quantity"] for record in own_app.records("inventory")}


def deliver(inbox, name):
    payload = sample(name)
    return inbox.deliver("inventory_updates", payload, event=payload["event"])


def update(item, action, quantity):
    return {
        "event": "INVENTORY_UPDATE",
        "updates": [{"item": item, "action": action, "quantity": quantity}],
    }


def test_updates_reach_the_application(place, runs, inbox, own_app):
    """Add, remove and set change the stock; each delivery is a task run named by event and id."""
    first = deliver(inbox, "inventory_update")
    state = runs.start(inventory_updates, **QUICK)
    assert (state.is_completed(), state.message) == (True, "1 done")
    assert stock(own_app) == {"widgets": 30, "gadgets": 5}
    assert runs.tasks() == {f"INVENTORY_UPDATE {first}": "Completed"}
    deliver(inbox, "inventory_update_set")
    runs.start(inventory_updates, **QUICK)
    assert stock(own_app)["widgets"] == 100
    assert set(inbox.statuses().values()) == {"done"}


def test_unknown_item_dead_letters_the_delivery_and_applies_the_rest(place, runs, inbox, own_app):
    """The run fails naming the delivery; after mending, Retry applies just what is missing."""
    good = deliver(inbox, "inventory_update")
    bad = deliver(inbox, "inventory_update_unknown_item")
    state = runs.start(inventory_updates, **QUICK)
    assert state.is_failed()
    reason = "1 of 2 updates applied; item 'unobtainium' is unknown: create it, then replay"
    assert (
        state.message == f"1 done, 1 dead-lettered: INVENTORY_UPDATE {bad} dead-lettered ({reason})"
    )
    assert inbox.statuses() == {good: "done", bad: "dead_letter"}
    assert inbox.reason(bad) == reason
    assert stock(own_app) == {"widgets": 31, "gadgets": 5}
    [artifact] = runs.artifacts()
    assert json.loads(artifact.data)[0]["Why"] == reason

    own_app.http.put(
        "/api/v1/inventory/unobtainium", json={"sku": "unobtainium", "name": "U", "quantity": 0}
    )
    later = inbox.deliver("inventory_updates", update("widgets", "add", 1))
    state = runs.retry(inventory_updates)
    assert (state.is_completed(), state.message) == (True, "1 done")
    assert stock(own_app) == {"widgets": 31, "gadgets": 5, "unobtainium": 3}
    assert inbox.statuses() == {good: "done", bad: "done", later: "received"}


def test_whatever_refusal_of_one_update_leaves_the_others_applied(apply, own_app):
    """One that the application refuses for another reason is told, and the next are applied."""
    own_app.behave("error", status=422, remaining=1)
    updates = [{"item": item, "action": "add", "quantity": 1} for item in ("widgets", "gadgets")]
    outcome = apply({"event": "INVENTORY_UPDATE", "updates": updates})
    assert outcome.status == "dead_letter"
    assert outcome.message.startswith("1 of 2 updates applied; item 'widgets' is refused: ")
    assert stock(own_app) == {"widgets": 10, "gadgets": 11}


def test_poisonous_delivery_blocks_no_other(place, runs, inbox, own_app):
    """Good deliveries around bad ones all have their effect."""
    for quantity in range(1, 6):
        inbox.deliver("inventory_updates", update("widgets", "add", quantity))
        inbox.deliver("inventory_updates", ["no object"])
    state = runs.start(inventory_updates, **QUICK)
    assert state.is_failed()
    assert state.message.startswith("5 done, 5 dead-lettered: ")
    assert stock(own_app)["widgets"] == 25


def test_transient_failure_is_retried_within_the_run(place, runs, inbox, own_app):
    """A busy application is asked again under the same key, so nothing is applied twice."""
    own_app.behave("drop_connection", applied=True, remaining=1)
    deliver(inbox, "inventory_update")
    state = runs.start(inventory_updates, **QUICK)
    assert state.is_completed()
    assert stock(own_app) == {"widgets": 30, "gadgets": 5}


def test_broken_application_leaves_the_delivery_for_later(place, runs, inbox, own_app, caplog):
    """When in-run retries are used up the run fails, without a traceback; Retry does not wait."""
    own_app.behave("error", status=500)
    failed = deliver(inbox, "inventory_update")
    state = runs.start(inventory_updates, **QUICK)
    assert state.is_failed()
    assert f"INVENTORY_UPDATE {failed} failed (http://127.0.0.1" in state.message
    assert inbox.statuses() == {failed: "failed"}
    assert "Traceback" not in caplog.text
    assert not any(record.exc_info for record in caplog.records)
    first = runs.last
    own_app.behave("ok")
    assert runs.start(inventory_updates, **QUICK).message == "nothing was waiting"
    assert runs.last != first
    runs.last = first
    assert runs.retry(inventory_updates).is_completed()
    assert inbox.statuses() == {failed: "done"}
    assert stock(own_app) == {"widgets": 30, "gadgets": 5}


def test_sample_in_place_of_a_delivery(place, runs, inbox, own_app):
    """A payload given as a parameter is applied; what waits in the inbox is left."""
    waiting = deliver(inbox, "inventory_update")
    state = runs.start(inventory_updates, payload=sample("inventory_update_set"))
    assert (state.is_completed(), state.message) == (True, "sample done")
    assert stock(own_app)["widgets"] == 100
    assert inbox.statuses() == {waiting: "received"}


def test_other_event_is_ignored(place, runs, inbox):
    """An event of another type needs nothing done, and its task run says so."""
    other = inbox.deliver("inventory_updates", {"event": "PRICES"}, event="PRICES")
    state = runs.start(inventory_updates, **QUICK)
    assert (state.is_completed(), state.message) == (True, "1 ignored")
    assert runs.tasks() == {f"PRICES {other}": "Ignored"}


def test_negative_stock_is_refused(apply, own_app):
    """A removal of more than there is changes nothing and says what to correct."""
    outcome = apply(sample("inventory_update_negative_stock"))
    assert outcome.status == "dead_letter"
    assert outcome.message == (
        "0 of 1 updates applied; removing 1000000 of 'gadgets' would make the stock negative: "
        "correct the stock, then replay"
    )
    assert stock(own_app)["gadgets"] == 10


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"action": "double"}, "updates.1.action: Input should be 'add', 'remove' or 'set'"),
        ({"quantity": -1}, "updates.1.quantity: Input should be greater than or equal to 0"),
        ({"quantity": "5"}, "updates.1.quantity: Input should be a valid integer"),
        ({"item": ""}, "updates.1.item: String should have at least 1 character"),
        ({"item": None}, "updates.1.item: Input should be a valid string"),
    ],
)
def test_broken_payload_changes_nothing(apply, own_app, changes, message):
    """A payload that breaks its contract is refused as a whole, and says where."""
    payload = update("widgets", "add", 1)
    payload["updates"].append({"item": "gadgets", "action": "add", "quantity": 2} | changes)
    with pytest.raises(BadPayloadError) as raised:
        apply(payload)
    assert str(raised.value) == f"sample: read INVENTORY_UPDATE 'd1': {message}; nothing was done"
    assert own_app.requests()["total"] == 0


def test_every_sample_has_its_decided_outcome(apply):
    """Each sample in the repository is applied, or ends as its name says."""
    for path in SAMPLES.glob("*.json"):
        try:
            outcome = apply(json.loads(path.read_text()), id_=path.stem)
        except BadPayloadError:
            assert "unknown_action" in path.stem
        else:
            is_bad = any(word in path.stem for word in ("unknown", "negative"))
            assert (outcome is not None) == is_bad


def test_handled_twice_applied_once(apply, own_app):
    """The same delivery once more changes nothing; the same payload as another one does."""
    for id_ in ("d1", "d1", "d2"):
        apply(sample("inventory_update"), id_=id_)
    assert stock(own_app) == {"widgets": 50, "gadgets": 0}


@pytest.mark.parametrize("item", [".", "..", "a/b", "\u00e4 \u00f6", "%2e%2e", "a?b#c", "\0"])
def test_item_names_cannot_reach_other_addresses(apply, own_app, item):
    """Whatever an item is called, it is asked for as an item, or refused."""
    try:
        assert apply(update(item, "add", 1)).status == "dead_letter"
    except BadPayloadError:
        assert item in (".", "..")
    assert set(own_app.requests()["counts"]) <= {"POST /api/v1/inventory/{key}/adjustments"}
    assert stock(own_app) == {"widgets": 10, "gadgets": 10}
