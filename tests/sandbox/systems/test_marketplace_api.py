"""The marketplace's stand-in: tokens, pages, its budget, and what it does to clients."""

from __future__ import annotations

from datetime import UTC, datetime

import httpx
import pytest

from sandbox.systems import marketplace_api as marketplace

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECRET = "sandbox-marketplace-secret"


@pytest.fixture
def api():
    """An API with a small budget."""
    with marketplace.start(requests_a_minute=5) as running:
        yield running


def token(api, secret=SECRET):
    answer = httpx.post(
        f"{api.url}/oauth/token",
        auth=("integration-patterns", secret),
        data={"grant_type": "client_credentials"},
    )
    return answer.json().get("access_token", answer.status_code)


def orders(api, **query):
    headers = {"Authorization": f"Bearer {token(api)}"}
    return httpx.get(f"{api.url}/v1/orders", headers=headers, params=query)


def test_only_its_client_gets_a_token_and_only_tokens_get_orders(api):
    """Others are refused with 401."""
    assert token(api, "wrong") == 401
    assert httpx.get(f"{api.url}/v1/orders").status_code == 401
    assert orders(api).status_code == 200


def test_cursors_lead_through_ties_in_order(api):
    """Orders of one second are paged by their id."""
    ids = api.place(5, at=NOON)
    seen, cursor = [], None
    while True:
        page = orders(api, limit=2, **({"cursor": cursor} if cursor else {})).json()
        seen += [order["id"] for order in page["records"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == ids


def test_a_range_has_its_beginning_and_not_its_end(api):
    """`updated_since` belongs to it, `updated_until` does not."""
    ids = [api.place(1, at=NOON.replace(second=second))[0] for second in range(4)]
    page = orders(
        api, updated_since="2026-03-01T12:00:01Z", updated_until="2026-03-01T12:00:03Z"
    ).json()
    assert [order["id"] for order in page["records"]] == ids[1:3]


def test_its_budget_is_told_and_kept(api):
    """The sixth request of a minute is refused and told when to come again."""
    answers = [orders(api) for _ in range(11)]  # the clock's minute may change once
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.headers["x-ratelimit-remaining"] == "0"
    assert answers[0].headers["x-ratelimit-limit"] == "5"


def test_a_cursor_that_is_not_one_is_refused(api):
    """Not with a broken server."""
    assert orders(api, cursor="nonsense").status_code == 400
    assert orders(api, limit=1000).status_code == 400


def test_business_goes_on(api):
    """New orders come, and some are late or wrong in time."""
    for _ in range(20):
        api.do_business()
    shown = api.orders()
    assert len(shown) >= 40
    assert any(order["amount"] in ("-1.00", "a lot") for order in shown)
