"""The tasks for HTTP APIs, against own app and a scripted API, some on a real Prefect server."""

from __future__ import annotations

import asyncio

import pytest
from prefect.states import Failed

from blocks.errors import (
    BadPayloadError,
    UnreachableError,
    UpstreamBusyError,
    UpstreamFailedError,
    UpstreamRejectedError,
)
from blocks.http_api import ApiKeyAuth, HttpApi, OAuth2Client
from sandbox.systems.scripted_api import ScriptedReply
from tasks.api import call_api, fetch_page, fetch_records, is_transient, send_batch
from tasks.core.connectors.http.errors import OutcomeUnknownError
from tasks.core.connectors.http.pagination import BodyCursor

CONTACTS = BodyCursor(records_path="records")
ERROR = {"system": "https://api.example", "operation": "GET /orders"}


def contact(number):
    return {"contact_id": f"C-{number}", "name": "Ann", "email": "ann@example.com"}


@pytest.fixture
def api(own_app):
    """The block for own app, in a hurry."""
    return HttpApi(
        base_url=f"{own_app.base_url}/api/v1",
        auth=ApiKeyAuth(key=own_app.api_key),
        first_wait_s=0.001,
    )


async def test_call_is_made_with_the_credentials_of_the_block(api):
    """A record that is put can be read back; a deletion answers nothing."""
    put = await call_api.fn(api, "PUT", "/contacts/C-1", json=contact(1))
    assert await call_api.fn(api, "GET", "/contacts/C-1") == put
    assert await call_api.fn(api, "DELETE", "/contacts/C-1") is None


async def test_batch_goes_in_once(api, own_app):
    """The same batch sent twice has one effect, whether as objects or as encoded JSON."""
    records = [contact(1), contact(2)]
    first = await send_batch.fn(api, "/contacts/batch", records, idempotency_key="k")
    again = await send_batch.fn(api, "/contacts/batch", records, idempotency_key="k")
    assert first == again == {"received": 2, "created": 2, "updated": 0, "unchanged": 0}
    encoded = b'[{"contact_id":"C-3","name":"Bo","email":"bo@example.com"}]'
    await send_batch.fn(api, "/contacts/batch", encoded, idempotency_key="k3")
    assert own_app.requests()["records"]["POST /api/v1/contacts/batch"] == 3


async def test_refused_batch_names_its_records(api):
    """The caller learns which records are at fault and why."""
    with pytest.raises(UpstreamRejectedError) as caught:
        await send_batch.fn(
            api, "/contacts/batch", [contact(1), {"contact_id": "C-2"}], idempotency_key="k"
        )
    assert caught.value.status == 422
    assert {(fault["index"], fault["field"]) for fault in caught.value.details} == {
        (1, "name"), (1, "email"),
    }  # fmt: skip


async def test_list_is_read_whole_or_page_by_page(api):
    """All pages together are the list, in one go or from position to position."""
    batch = [contact(number) for number in range(5)]
    await send_batch.fn(api, "/contacts/batch", batch, idempotency_key="k")
    whole = await fetch_records.fn(api, "/contacts", CONTACTS, params={"limit": 2})
    page = await fetch_page.fn(api, "/contacts", CONTACTS, params={"limit": 2})
    records = page.records
    while page.next_position is not None:
        page = await fetch_page.fn(
            api, "/contacts", CONTACTS, position=page.next_position, params={"limit": 2}
        )
        records += page.records
    assert [record["contact_id"] for record in whole] == [f"C-{number}" for number in range(5)]
    assert records == whole


async def test_list_too_long_for_memory_is_refused(api):
    """A list beyond max_records is an error."""
    await send_batch.fn(
        api, "/contacts/batch", [contact(number) for number in range(5)], idempotency_key="k"
    )
    with pytest.raises(BadPayloadError, match="max_records"):
        await fetch_records.fn(api, "/contacts", CONTACTS, max_records=4)


async def test_retrying_is_set_in_the_block(api, own_app):
    """Attempts, time-outs and sizes come from the block."""
    own_app.behave("error", status=503, remaining=2)
    assert await call_api.fn(api, "GET", "/contacts") == {"records": [], "next_cursor": None}
    assert own_app.requests()["total"] == 3

    own_app.behave("error", status=500)
    hasty = api.model_copy(update={"max_attempts": 1})
    with pytest.raises(UpstreamFailedError):
        await call_api.fn(hasty, "GET", "/contacts")
    assert own_app.requests()["total"] == 4

    own_app.behave("rate_limit", retry_after_s=2)
    with pytest.raises(UpstreamBusyError):
        await call_api.fn(api.model_copy(update={"max_retry_after_s": 1}), "GET", "/contacts")

    own_app.behave("slow", delay_s=0.2)
    with pytest.raises(UnreachableError, match="read_timeout_s"):
        await call_api.fn(hasty.model_copy(update={"read_timeout_s": 0.05}), "GET", "/contacts")

    own_app.behave()
    with pytest.raises(BadPayloadError, match="max_response_bytes"):
        await call_api.fn(api.model_copy(update={"max_response_bytes": 10}), "GET", "/contacts")


async def test_calls_leave_the_event_loop_free(api, own_app):
    """Calls of one flow run side by side."""
    own_app.behave("slow", delay_s=0.1)
    ticks = 0

    async def tick():
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0.01)

    ticking = asyncio.create_task(tick())
    await asyncio.gather(*(call_api.fn(api, "GET", "/contacts") for _ in range(3)))
    ticking.cancel()
    assert ticks > 2


async def test_tokens_of_a_client_are_fetched(scripted_api):
    """A block with OAuth 2 client credentials fetches a token and sends it."""
    scripted_api.answer(ScriptedReply({"access_token": "t1"}), ScriptedReply({"a": 1}))
    api = HttpApi(
        base_url=scripted_api.url,
        auth=OAuth2Client(
            token_url=f"{scripted_api.url}/token",
            client_id="us",
            client_secret="s3cret",
            scope="read",
            client_auth="form",
        ),
    )
    assert await call_api.fn(api, "GET", "/orders") == {"a": 1}
    token, call = scripted_api.requests
    assert token.body == (
        b"grant_type=client_credentials&scope=read&client_id=us&client_secret=s3cret"
    )
    assert call.headers["authorization"] == "Bearer t1"


async def test_calls_of_a_process_share_a_token(scripted_api):
    """Each call has a client of its own, but a token is fetched only once."""
    scripted_api.answer(ScriptedReply({"access_token": "t1"}), ScriptedReply(), ScriptedReply())
    auth = {"token_url": f"{scripted_api.url}/token", "client_id": "us", "client_secret": "x"}
    for _ in range(2):
        # each run loads the block anew
        await call_api.fn(HttpApi(base_url=scripted_api.url, auth=auth), "GET", "/orders")
    assert [request.path for request in scripted_api.requests] == ["/token", "/orders", "/orders"]


async def test_rotated_refresh_token_is_used_from_then_on(scripted_api):
    """Whoever holds the old refresh token gets the new one used for it, in this process."""
    rotated = ScriptedReply({"access_token": "t", "refresh_token": "new", "expires_in": 0})
    scripted_api.answer(*[rotated, ScriptedReply()] * 3)
    auth = {
        "token_url": f"{scripted_api.url}/token",
        "client_id": "us",
        "client_secret": "x",
        "refresh_token": "old",
    }
    api = HttpApi(base_url=scripted_api.url, auth=auth)
    await call_api.fn(api, "GET", "/orders")
    await call_api.fn(api, "GET", "/orders")
    await call_api.fn(HttpApi(base_url=scripted_api.url, auth=auth), "GET", "/orders")
    asked = [request.body for request in scripted_api.requests if request.path == "/token"]
    assert [body.rpartition(b"=")[2] for body in asked] == [b"old", b"new", b"new"]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (UpstreamFailedError("…", **ERROR), True),
        (UpstreamRejectedError("…", **ERROR), False),
        (OutcomeUnknownError("…", **ERROR), False),
        (ValueError(), False),
        (None, False),
    ],
)
def test_only_transient_failures_are_retried(error, expected):
    """The retry condition of all tasks goes by the class of the error."""
    for one in (call_api, fetch_page, fetch_records, send_batch):
        assert one.retry_condition_fn is is_transient
        assert is_transient(one, None, Failed(data=error)) is expected
