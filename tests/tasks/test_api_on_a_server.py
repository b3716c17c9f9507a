"""The tasks for HTTP APIs as they run under a real Prefect server."""

from __future__ import annotations

import asyncio

import pytest
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate

from blocks.errors import MisconfiguredError, UpstreamBusyError, UpstreamFailedError
from blocks.http_api import ApiKeyAuth, HttpApi, OAuth2RefreshToken
from sandbox.systems.scripted_api import ScriptedReply
from tasks.api import call_api, fetch_page, open_api
from tasks.core.connectors.http.pagination import BodyCursor

# Prefect's own clients leave sockets to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

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


def test_retries_of_a_task_end_at_the_first_permanent_error(prefect_server, api, own_app):
    """Told to retry, a task repeats what may pass and nothing else."""
    impatient = api.model_copy(update={"max_attempts": 1})

    @flow
    async def calls():
        call = call_api.with_options(retries=2, retry_delay_seconds=0)
        await call(impatient, "GET", "/contacts", return_state=True)
        await call(impatient, "GET", "/contacts/unknown", return_state=True)

    own_app.behave("error", status=500, remaining=2)
    asyncio.run(calls())
    assert own_app.requests()["counts"] == {
        "GET /api/v1/contacts": 3,
        "GET /api/v1/contacts/{key}": 1,
    }


def test_retries_within_a_call_show_in_the_log_of_the_run(prefect_server, api, own_app, caplog):
    """The wait before another attempt is told in the task run's log."""

    @flow
    async def calls():
        await call_api(api, "GET", "/contacts")

    own_app.behave("error", status=503, remaining=1)
    asyncio.run(calls())
    (told,) = [record for record in caplog.records if "trying again" in record.message]
    assert told.name == "prefect.task_runs"
    assert "GET /contacts: it answered 503 Service Unavailable" in told.message


def test_rotated_refresh_token_is_saved_in_the_block(prefect_server, scripted_api):
    """The refresh token that the endpoint gave last is what the next run loads."""
    scripted_api.answer(
        ScriptedReply({"access_token": "t", "refresh_token": "new"}), ScriptedReply()
    )
    auth = OAuth2RefreshToken(
        token_url=f"{scripted_api.url}/token",
        client_id="us",
        client_secret="s3cret",
        refresh_token="old",
    )
    HttpApi(base_url=scripted_api.url, auth=auth).save("rotating", overwrite=True)
    with open_api(HttpApi.load("rotating")) as client:
        client.call("GET", "/orders")
    assert HttpApi.load("rotating").auth.refresh_token.get_secret_value() == "new"


def test_shared_budget_must_exist(prefect_server, api):
    """A block that names a limit nobody made says how to make it."""
    limited = api.model_copy(update={"rate_limit": "nobody-made-it"})
    told = pytest.raises(MisconfiguredError, match="prefect gcl create nobody-made-it")
    with open_api(limited) as client, told:
        client.call("GET", "/contacts")


def test_shared_budget_is_kept_by_all_clients(prefect_server, api, own_app):
    """Once the slots are taken, further requests of any client wait, here too long."""

    async def make_limit():
        async with get_client() as client:
            await client.create_global_concurrency_limit(
                GlobalConcurrencyLimitCreate(name="own-app", limit=2, slot_decay_per_second=0.0001)
            )

    asyncio.run(make_limit())
    limited = api.model_copy(
        update={"rate_limit": "own-app", "max_retry_after_s": 0.2, "max_attempts": 1}
    )
    for _ in range(2):
        with open_api(limited) as client:
            client.call("GET", "/contacts")
    with open_api(limited) as client, pytest.raises(UpstreamBusyError, match="no slot within"):
        client.call("GET", "/contacts")
    assert own_app.requests()["total"] == 2


def test_pages_read_before_a_failure_are_not_read_again(prefect_server, api, own_app):
    """A flow that keeps results resumes at the page that failed."""
    with open_api(api) as client:
        batch = [contact(number) for number in range(5)]
        client.call("POST", "/contacts/batch", json={"records": batch}, idempotency_key="k")
    own_app.forget_requests()

    @task
    def fail_once(marks=[]):  # noqa: B006
        marks.append(1)
        if len(marks) == 1:
            raise UpstreamFailedError("…", **ERROR)

    @flow(persist_result=True, retries=1)
    async def read():
        page = await fetch_page(api, "/contacts", CONTACTS, params={"limit": 2})
        page = await fetch_page(
            api, "/contacts", CONTACTS, position=page.next_position, params={"limit": 2}
        )
        fail_once()
        return page.records

    assert [record["contact_id"] for record in asyncio.run(read())] == ["C-2", "C-3"]
    assert own_app.requests()["total"] == 2
