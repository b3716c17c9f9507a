"""Tasks and functions of exports: an application's published events, and declared requests."""

from __future__ import annotations

from typing import Any

from prefect import task

from blocks.http_api import HttpApi
from tasks.api import is_transient, open_api
from tasks.core.connectors.http import templated_request
from tasks.core.connectors.http.client import ApiClient
from tasks.core.connectors.http.templated_request import (
    CompiledRequest,
    RequestTemplate,
    compile_request,
)
from tasks.core.intake.webhooks.published_events import PublishedEvents
from tasks.core.threads import in_thread

__all__ = [
    "CompiledRequest",
    "PublishedEvents",
    "RequestTemplate",
    "compile_request",
    "published_events",
    "send_request",
]


def published_events(application: ApiClient, path: str = "asyncapi.json") -> PublishedEvents:
    """Return the events that an application publishes, fetched when the first one is checked.

    Args:
        application: The API with the AsyncAPI document.
        path: The document's path.
    """
    return PublishedEvents(
        lambda: application.call("GET", path, operation="read published events").json()
    )


@task(
    task_run_name="{request.method} {request.path} for {record}",
    retry_condition_fn=is_transient,
)
async def send_request(
    api: HttpApi,
    request: RequestTemplate,
    values: dict[str, Any],
    *,
    idempotency_key: str,
    record: str,
) -> dict[str, Any]:
    """Render a declared request, send it, and return what it takes from the response.

    Args:
        api: Where, as whom and with which retries.
        request: The template, as a deployment's parameters have it.
        values: Name to JSON value, as its expressions name them.
        idempotency_key: The same for the same effect, in other runs, too.
        record: The record concerned, for run names and errors.

    Raises:
        IntegrationError: As in `tasks.core.connectors.http.templated_request.send_request`.
    """

    def send() -> dict[str, Any]:
        with open_api(api) as client:
            return templated_request.send_request(
                client,
                compile_request(request),
                values,
                idempotency_key=idempotency_key,
                record=record,
            )

    return await in_thread(send)
