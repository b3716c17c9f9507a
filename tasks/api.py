"""Tasks that call HTTP APIs: one call, one page, all records, one batch."""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from prefect import State, get_run_logger, task
from prefect.client.schemas.objects import TaskRun
from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError
from prefect.concurrency.sync import rate_limit
from prefect.exceptions import MissingContextError
from pydantic import SecretStr

from blocks.errors import (
    MisconfiguredError,
    TransientError,
    UnreachableError,
    UpstreamBusyError,
)
from blocks.http_api import HttpApi, OAuth2Grant, OAuth2RefreshToken
from tasks.connections import load_connection
from tasks.core.connectors.http import batches, paging
from tasks.core.connectors.http.auth import OAuth2
from tasks.core.connectors.http.batch_loading import BatchLoader
from tasks.core.connectors.http.client import ApiClient, ApiLimits, path_segment
from tasks.core.connectors.http.current_records import is_outdated
from tasks.core.connectors.http.errors import OutcomeUnknownError, Where
from tasks.core.connectors.http.pagination import (
    BodyCursor,
    HeaderCursor,
    LastRecord,
    LinkHeader,
    NextUrl,
    OffsetLimit,
    PageNumber,
    PaginationStyle,
    Position,
    SinglePage,
)
from tasks.core.connectors.http.paging import Page
from tasks.core.connectors.http.retrying import RetryPolicy
from tasks.core.threads import in_thread

__all__ = [
    "DEFAULT_MAX_RECORDS",
    "ApiClient",
    "BatchLoader",
    "BodyCursor",
    "HeaderCursor",
    "LastRecord",
    "LinkHeader",
    "NextUrl",
    "OffsetLimit",
    "OutcomeUnknownError",
    "PageNumber",
    "PaginationStyle",
    "SinglePage",
    "call_api",
    "fetch_page",
    "fetch_records",
    "is_outdated",
    "is_transient",
    "open_api",
    "open_api_for_deliveries",
    "open_connection",
    "path_segment",
    "send_batch",
]


DEFAULT_MAX_RECORDS = 100_000


def is_transient(_task: Any, _task_run: TaskRun, state: State[Any]) -> bool:
    """Retry condition of tasks: retry only transient failures."""
    return isinstance(state.data, TransientError)


@task(task_run_name="{method} {path}", retry_condition_fn=is_transient)
async def call_api(
    api: HttpApi,
    method: str,
    path: str,
    *,
    params: Mapping[str, Any] | None = None,
    json: Any = None,
    idempotency_key: str | None = None,
) -> Any:
    """Make one call and return the response's JSON, None if it is empty.

    Args:
        api: Where, as whom and with which retries.
        method: The HTTP method.
        path: Relative to the block's base URL, without query.
        params: The query.
        json: The body.
        idempotency_key: The same for the same effect. Without one a POST that may have been
            carried out is not repeated, neither here nor by a retry of the task.

    Raises:
        IntegrationError: As in `tasks.core.connectors.http.client.ApiClient.call`.
    """

    def call() -> Any:
        with open_api(api) as client:
            return client.call(
                method, path, params=params, json=json, idempotency_key=idempotency_key
            ).json()

    return await in_thread(call)


@task(task_run_name="page of {path}", retry_condition_fn=is_transient)
async def fetch_page(
    api: HttpApi,
    path: str,
    pagination: PaginationStyle,
    *,
    position: Position = None,
    params: Mapping[str, Any] | None = None,
) -> Page:
    """Fetch one page; `next_position` of its result is the position of the next.

    A flow that persists results resumes at the page that failed.

    Args:
        api: As in `call_api`.
        path: As in `call_api`.
        pagination: How the list is paged.
        position: `next_position` of the previous page; None for the first page.
        params: Query of every page.

    Raises:
        IntegrationError: As in `tasks.core.connectors.http.paging.fetch_page`.
    """

    def fetch() -> Page:
        with open_api(api) as client:
            return paging.fetch_page(client, path, pagination, position=position, params=params)

    return await in_thread(fetch)


@task(task_run_name="records of {path}", retry_condition_fn=is_transient)
async def fetch_records(
    api: HttpApi,
    path: str,
    pagination: PaginationStyle,
    *,
    params: Mapping[str, Any] | None = None,
    max_records: int = DEFAULT_MAX_RECORDS,
    at_once: int = 1,
) -> list[Any]:
    """Fetch a whole list that fits into memory.

    Args:
        api: As in `call_api`.
        path: As in `call_api`.
        pagination: How the list is paged.
        params: Query of every page.
        max_records: A longer list is an error; read it with `fetch_page`.
        at_once: As in `tasks.core.connectors.http.paging.fetch_pages`.

    Raises:
        IntegrationError: As in `tasks.core.connectors.http.paging.fetch_pages`.
    """

    def fetch() -> list[Any]:
        with open_api(api) as client:
            return list(
                paging.fetch_records(
                    client,
                    path,
                    pagination,
                    params=params,
                    max_records=max_records,
                    at_once=at_once,
                )
            )

    return await in_thread(fetch)


@task(task_run_name="batch {idempotency_key} to {path}", retry_condition_fn=is_transient)
async def send_batch(
    api: HttpApi,
    path: str,
    records: bytes | Sequence[Mapping[str, Any]],
    *,
    idempotency_key: str,
    envelope: str = "records",
) -> Any:
    """Send one batch of records; sending it again has no second effect.

    Args:
        api: As in `call_api`.
        path: As in `call_api`.
        records: Objects, or a JSON array that is encoded already.
        idempotency_key: The same for the same records, in other runs, too.
        envelope: The field that holds the records.

    Returns:
        The response's JSON.

    Raises:
        IntegrationError: As in `tasks.core.connectors.http.batches.send_batch`.
    """

    def send() -> Any:
        with open_api(api) as client:
            return batches.send_batch(
                client, path, records, idempotency_key=idempotency_key, envelope=envelope
            )

    return await in_thread(send)


@contextmanager
def open_api(api: HttpApi) -> Iterator[ApiClient]:
    """Open a client for an API with its block's settings: tokens, retries, limits, budget.

    Inside a run, retries are logged to the run.
    """
    with api.get_client() as http:
        yield ApiClient(
            http,
            system=api.system,
            oauth=_oauth(api),
            retries=RetryPolicy(
                max_attempts=api.max_attempts,
                first_wait_s=api.first_wait_s,
                max_wait_s=api.max_wait_s,
                max_retry_after_s=api.max_retry_after_s,
            ),
            limits=ApiLimits(
                max_response_bytes=api.max_response_bytes, total_timeout_s=api.total_timeout_s
            ),
            before_request=_budget(api),
            log=_run_log(),
        )


@asynccontextmanager
async def open_connection(block: str) -> AsyncIterator[ApiClient]:
    """Open a client for the API of a block, e.g. "http-api/own-app"; see `open_api`."""
    with open_api(await load_connection(block, HttpApi)) as api:
        yield api


@asynccontextmanager
async def open_api_for_deliveries(
    block: str, *, timeout_s: float | None = None
) -> AsyncIterator[ApiClient]:
    """Open a client that attempts each call once: the delivery retries instead, visibly.

    Args:
        block: The API's block, e.g. "http-api/own-app".
        timeout_s: Most seconds for a call, if a caller waits; None for the block's limit.
    """
    api = await load_connection(block, HttpApi)
    changes: dict[str, Any] = {"max_attempts": 1}
    if timeout_s is not None:
        changes |= {
            "connect_timeout_s": min(api.connect_timeout_s, timeout_s),
            "read_timeout_s": timeout_s,
            "total_timeout_s": timeout_s,
        }
    with open_api(api.model_copy(update=changes)) as client:
        yield client


def _run_log() -> logging.Logger | logging.LoggerAdapter[Any]:
    try:
        return get_run_logger()
    except MissingContextError:
        return logging.getLogger(__name__)


# Tokens are shared by all calls of this process.
_grants: dict[str, OAuth2] = {}
_grants_lock = threading.Lock()


def _oauth(api: HttpApi) -> OAuth2 | None:
    grant = api.auth
    if not isinstance(grant, OAuth2Grant):
        return None
    with _grants_lock:
        return _grants.setdefault(_identity(grant), _new_oauth(api, grant))


def _new_oauth(api: HttpApi, grant: OAuth2Grant) -> OAuth2:
    refresh_token = None
    if isinstance(grant, OAuth2RefreshToken):
        refresh_token = grant.refresh_token.get_secret_value()
    return OAuth2(
        grant.token_url,
        client_id=grant.client_id,
        client_secret=grant.client_secret.get_secret_value(),
        refresh_token=refresh_token,
        scope=grant.scope or None,
        parameters=grant.parameters,
        client_auth=grant.client_auth,
        on_refresh_token=lambda token: _keep_refresh_token(api, token),
    )


def _identity(grant: OAuth2Grant) -> str:
    """Return everything that identifies a grant, including its secrets: never show it."""
    values = [v.get_secret_value() if isinstance(v, SecretStr) else v for _, v in grant]
    return repr(values)


def _keep_refresh_token(api: HttpApi, token: str) -> None:
    """Save a rotated refresh token in the block document, as the old one may be invalid."""
    grant = api.auth
    assert isinstance(grant, OAuth2RefreshToken)  # noqa: S101 - only then it is called
    with _grants_lock:
        oauth = _grants[_identity(grant)]
        grant.refresh_token = SecretStr(token)
        _grants[_identity(grant)] = oauth
    name = api._block_document_name  # noqa: SLF001 - Prefect offers no other way
    if name is not None:
        api.save(name, overwrite=True)


def _budget(api: HttpApi) -> Callable[[], None] | None:
    """Return a function that waits for a slot of the global limit that all runs share."""
    name = api.rate_limit
    if not name:
        return None
    where = Where(system=api.system, operation="wait for rate limit", record=name)

    def wait() -> None:
        try:
            rate_limit(name, strict=True, timeout_seconds=api.max_retry_after_s)
        except TimeoutError as exc:
            raise UpstreamBusyError(
                f"no slot within {api.max_retry_after_s:g} s: the runs together want more than "
                "the limit allows",
                **where,
            ) from exc
        except ConcurrencySlotAcquisitionError as exc:
            if exc.__cause__ is not None:
                raise UnreachableError("Prefect's API gave no slot", **where) from exc
            raise MisconfiguredError(
                "there is no such global concurrency limit with slot decay; make it with "
                f"prefect gcl create {name} --limit N --slot-decay-per-second N",
                **where,
            ) from exc

    return wait
