"""Show in the application what happens in GitHub repositories, as GitHub's webhooks tell it."""

from __future__ import annotations

from typing import Any

from prefect import State

from blocks.http_api import HttpApi
from flows.github_events.activities import (
    Activity,
    activity_for_issue,
    activity_for_pull_request,
    activity_for_push,
)
from tasks.api import open_api
from tasks.connections import load_connection
from tasks.core.connectors.http.client import ApiClient
from tasks.core.intake.inbox.consumer import ConsumerSettings
from tasks.core.intake.inbox.delivery import Delivery, Outcome, ignored
from tasks.deliveries import handle_deliveries, name_run
from tasks.integration_flow import flow


@flow(name="github-events", flow_run_name=name_run)
async def github_events(
    application: str = "http-api/own-app",
    payload: dict[str, Any] | None = None,
    event: str = "push",
    consumer: ConsumerSettings = ConsumerSettings(),  # noqa: B008 - immutable, shown in the run form
) -> State[Any]:
    """Take the waiting GitHub deliveries and add an activity for each push, issue and pull request.

    A ping and events of other types are ignored, which their task runs say. Retry handles what
    this run failed to handle.

    Args:
        application: The block of the application that shows activities.
        payload: A sample event to handle in place of what is waiting.
        event: The sample's type, as GitHub sends it in X-GitHub-Event.
        consumer: How the run goes about waiting deliveries.
    """
    block = await load_connection(application, HttpApi)
    # one attempt a call: retries are the delivery's own, so that they are seen
    with open_api(block.model_copy(update={"max_attempts": 1})) as api:

        def handle(delivery: Delivery) -> Outcome | None:
            outcome = branch_by_event(delivery)
            if not isinstance(outcome, Activity):
                return outcome
            add_activity(api, outcome)
            return None

        return await handle_deliveries(
            "github_events", handle, settings=consumer, payload=payload, event=event
        )


def branch_by_event(delivery: Delivery) -> Activity | Outcome:
    """The branch for each type of event."""
    match delivery.event:
        case "push":
            return activity_for_push(delivery)
        case "issues":
            return activity_for_issue(delivery)
        case "pull_request":
            return activity_for_pull_request(delivery)
        case "ping":
            return ignored("ping: the webhook is connected")
        case other:
            return ignored(f"{other or 'an event without a type'}: not told")


def add_activity(api: ApiClient, activity: Activity) -> None:
    """Put the activity into the application; the same one again changes nothing."""
    api.call(
        "PUT",
        f"activities/{activity.activity_id}",
        json=activity.model_dump(mode="json"),
        operation="add activity",
        record=activity.activity_id,
    )
