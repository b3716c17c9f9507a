"""How own app misbehaves and what it remembers of requests."""

from __future__ import annotations

import httpx
import pytest

CONTACT = {"contact_id": "C-1", "name": "Ann", "email": "ann@example.com"}
BATCH = "/api/v1/contacts/batch"


def send(own_app, key="1"):
    return own_app.http.post(BATCH, json={"records": [CONTACT]}, headers={"Idempotency-Key": key})


def test_errors_end_after_the_given_number(own_app):
    """Told to fail twice, it answers the third request."""
    own_app.behave("error", status=503, remaining=2)
    assert [send(own_app).status_code for _ in range(3)] == [503, 503, 200]


def test_only_the_named_resource_misbehaves(own_app):
    """Misbehaviour can be bound to one resource."""
    own_app.behave("error", resource="orders")
    assert send(own_app).status_code == 200
    assert own_app.http.get("/api/v1/orders").status_code == 500


def test_rate_limit_says_when_to_come_back(own_app):
    """A rate limit is a 429 with Retry-After."""
    own_app.behave("rate_limit", retry_after_s=7, remaining=1)
    answer = send(own_app)
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "7")


@pytest.mark.parametrize("applied", [False, True])
def test_cut_answer_may_or_may_not_have_been_applied(own_app, applied):
    """A dropped connection leaves the client in doubt; the idempotency key resolves it."""
    own_app.behave("drop_connection", remaining=1, applied=applied)
    with pytest.raises(httpx.RemoteProtocolError):
        send(own_app)
    assert len(own_app.records("contacts")) == applied
    assert send(own_app).headers.get("Idempotency-Replayed") == ("true" if applied else None)


def test_behaviour_that_does_not_exist_is_refused(own_app):
    """A mistyped mode or resource is named, not ignored."""
    for wrong in ({"mode": "explode"}, {"resource": "planets"}, {"remaning": 1}):
        answer = httpx.put(f"{own_app.base_url}/sandbox/behaviour", json=wrong)
        assert answer.status_code == 422


def test_requests_are_counted_by_route_without_their_bodies(own_app):
    """The log counts requests and newly stored records, and lists keys but no contents."""
    send(own_app)
    send(own_app)
    own_app.http.get("/api/v1/contacts/C-1")
    own_app.http.get("/api/v1/contacts", headers={"X-API-Key": "wrong"})
    report = own_app.requests()
    assert report["total"] == 4
    assert report["counts"] == {
        f"POST {BATCH}": 2,
        "GET /api/v1/contacts/{key}": 1,
        "GET /api/v1/contacts": 1,
    }
    assert report["records"][f"POST {BATCH}"] == 1
    assert [entry["replayed"] for entry in report["requests"]] == [False, True, False, False]
    assert [entry["status"] for entry in report["requests"]] == [200, 200, 200, 401]
    assert report["requests"][0]["idempotency_key"] == "1"
    assert "ann@example.com" not in str(report)
    own_app.forget_requests()
    assert own_app.requests()["total"] == 0
