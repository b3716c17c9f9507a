"""Show in the application what happens in GitHub repositories, as GitHub's webhooks tell it."""

from __future__ import annotations

from typing import Any

from prefect import State

from flows.github_events.activities import (
    Activity,
    activity_for_issue,
    activity_for_pull_request,
    activity_for_push,
)
from tasks.api import ApiClient, open_api_for_deliveries
from tasks.deliveries import ConsumerSettings, Delivery, Outcome, handle_deliveries, ignored
from tasks.integration_flow import flow, run_name


@flow(name="github-events", flow_run_name=run_name())
async def github_events(
    application: str = "http-api/own-app",
    payload: dict[str, Any] | None = None,
    event: str = "push",
    consumer: ConsumerSettings = ConsumerSettings(),
) -> State[Any]:
    """Take the waiting GitHub deliveries and add an activity for each push, issue and pull request.

    A ping and events of other types are ignored, which their task runs say. Retry handles what
    this run failed to handle.

    Args:
        application: The block of the application that shows activities.
        event: The sample's type, as GitHub sends it in X-GitHub-Event.
    """
    async with open_api_for_deliveries(application) as api:

        def handle(delivery: Delivery) -> Outcome | None:
            activity = branch_by_event(delivery)
            if isinstance(activity, Outcome):
                return activity
            add_activity(api, activity)
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
