"""The scheduled data import as a whole: a marketplace, a Prefect server and the application."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from blocks.http_api import ApiKeyAuth, HttpApi
from flows.import_cursors.flow import set_import_cursor, show_import_cursors
from flows.orders_import.flow import orders_import
from flows.orders_import.orders import ORDERS
from tasks.core.state.database import open_database
from tasks.core.sync.api_import.cursors import Cursors

PAGES_OF_THREE = {"orders": {**ORDERS.model_dump(), "params": {"limit": 3}}, "import_retries": 0}


@pytest.fixture
def marketplace(tmp_path, runs, own_app, marketplace_api, monkeypatch):
    """The marketplace and the application, both known to Prefect as blocks."""
    monkeypatch.setenv("INTEGRATIONS_DATABASE_URL", f"sqlite:///{tmp_path / 'state.db'}")
    marketplace_api.block(max_attempts=2, first_wait_s=0.01).save("marketplace", overwrite=True)
    HttpApi(
        base_url=f"{own_app.base_url}/api/v1",
        auth=ApiKeyAuth(key=own_app.api_key),
        max_attempts=2,
        first_wait_s=0.01,
    ).save("own-app", overwrite=True)
    return marketplace_api


@pytest.fixture
def cursors(marketplace):
    """The cursors that the flows use."""
    engine = open_database()
    yield Cursors(engine)
    engine.dispose()


@pytest.fixture
def at():
    """An instant so many seconds after one an hour ago, at a whole second."""
    base = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
    return lambda seconds: base + timedelta(seconds=seconds)


def tables(runs):
    found = [artifact for artifact in runs.artifacts() if artifact.type == "table"]
    return {artifact.key: json.loads(artifact.data) for artifact in found}


def test_orders_are_imported_and_told_in_the_ui(marketplace, runs, own_app, at):
    """Mapped orders arrive, bad ones are told with field and reason, the cursor is shown."""
    first, bad, _ = marketplace.place(3, at=at(0))
    marketplace.change(bad, at=at(1), amount="a lot")
    state = runs.start(orders_import)
    assert state.is_completed(), state.message
    assert state.message == "2 records in 1 page, 1 rejected"
    assert runs.tasks() == {"import marketplace-orders": "Completed"}
    shown = next(order for order in marketplace.orders() if order["id"] == first)
    stored = {order["order_no"]: order for order in own_app.records("orders")}
    assert stored[first]["customer"] == shown["buyer"]["name"]
    assert stored[first]["total"] == shown["amount"]
    assert len(stored[first]["lines"]) == len(shown["items"])
    found = tables(runs)
    [row] = found["data-import-marketplace-orders"]
    assert (row["Records"], row["Rejected"], row["From"]) == (2, 1, "the beginning")
    assert row["Cursor"] == f"{at(1):%Y-%m-%dT%H:%M:%S.000000Z}"
    [reject] = found["data-import-marketplace-orders-rejects"]
    assert (reject["Record"], reject["Field"]) == (bad, "total")
    assert "a lot" not in json.dumps(found)


def test_nothing_new_is_a_success(marketplace, runs, own_app, at):
    """The second run reads the overlap and sends nothing."""
    marketplace.place(2, at=at(0))
    runs.start(orders_import)
    state = runs.start(orders_import)
    assert (state.is_completed(), state.message) == (True, "nothing new")


def test_retry_resumes_at_the_page_that_failed(marketplace, runs, own_app, at):
    """The run fails and says why; Retry asks for the page where it stopped, and sends the rest."""
    for number in range(9):
        marketplace.place(1, at=at(number))
    own_app.behave("error", status=503, resource="orders")
    state = runs.start(orders_import, **PAGES_OF_THREE)
    assert state.is_failed()
    assert "503" in state.message
    assert tables(runs)["data-import-marketplace-orders"][0]["Result"] == "failed"
    own_app.behave("ok")
    marketplace.queries.clear()
    state = runs.retry(orders_import)
    assert state.is_completed(), state.message
    assert state.message == "9 records in 3 pages; an earlier attempt had begun it"
    assert "cursor" in marketplace.queries[0]
    assert len(own_app.records("orders")) == 9


def test_a_short_failure_is_retried_within_the_run(marketplace, runs, own_app, at):
    """The task is tried again where it stopped; a permanent error is not."""
    marketplace.place(3, at=at(0))
    marketplace.faults.broken = 3
    state = runs.start(orders_import, import_retry_delay_s=0)
    assert state.is_completed(), state.message
    assert marketplace.requests["orders"] == 4
    marketplace.faults.repeat_cursor = True
    marketplace.place(3, at=at(1))
    marketplace.requests.clear()
    state = runs.start(orders_import, **PAGES_OF_THREE | {"import_retries": 2})
    assert state.is_failed()
    assert "circle" in state.message
    assert marketplace.requests["orders"] <= 3  # of one attempt: two pages, and one read ahead


def test_a_backfill_by_parameters_leaves_the_cursor(marketplace, runs, own_app, cursors, at):
    """Orders of the range that the application lost come back, no others."""
    ids = [marketplace.place(1, at=at(10 * number))[0] for number in range(5)]
    runs.start(orders_import)
    cursor = cursors.streams()[0].value
    for id_ in ids:
        own_app.http.delete(f"/api/v1/orders/{id_}").raise_for_status()
    state = runs.start(orders_import, backfill_from=at(10), backfill_until=at(30))
    assert state.message == "2 records in 1 page"
    assert sorted(order["order_no"] for order in own_app.records("orders")) == ids[1:3]
    assert cursors.streams()[0].value == cursor
    state = runs.start(orders_import, backfill_from=at(10))
    assert state.is_failed()


def test_of_two_runs_at_once_one_says_that_the_other_is_at_it(
    marketplace, runs, own_app, cursors, at
):
    """The later run completes and asks the marketplace for nothing; the next one imports."""
    marketplace.place(3, at=at(0))
    lease = cursors.lease("marketplace-orders", owner="another")
    state = runs.start(orders_import)
    assert state.is_completed()
    assert state.message.startswith("nothing to do: run another is at it, until ")
    assert marketplace.requests["orders"] == 0
    cursors.release(lease)
    assert runs.start(orders_import).message == "3 records in 1 page"


def test_a_cursor_is_shown_set_and_reset_from_the_ui(marketplace, runs, own_app, cursors, at):
    """A dry run shows it; set back, the orders behind it come again; reset, all do."""
    for number in range(3):
        marketplace.place(1, at=at(1000 * number))
    runs.start(orders_import)
    assert runs.start(show_import_cursors).message == "1 streams"
    [row] = tables(runs)["import-cursors"]
    assert row["Stream"] == "marketplace-orders"
    assert row["Cursor"] == f"{at(2000):%Y-%m-%dT%H:%M:%S.000000Z}"

    back = f"{at(1000):%Y-%m-%dT%H:%M:%SZ}"
    target = {"stream": "marketplace-orders", "cursor": back}
    assert "would be set to" in runs.start(set_import_cursor, **target).message
    assert cursors.streams()[0].value != back
    state = runs.start(set_import_cursor, **target, dry_run=False)
    assert state.is_completed()
    assert cursors.streams()[0].value == back
    assert runs.start(orders_import).message == "2 records in 1 page"
    runs.start(set_import_cursor, stream="marketplace-orders", reset=True, dry_run=False)
    assert runs.start(orders_import).message == "3 records in 1 page"
    assert runs.start(set_import_cursor, stream="marketplace-orders").is_failed()
