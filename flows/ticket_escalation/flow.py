"""Open an issue at GitHub for every ticket that is a bug, and let it follow the ticket."""

from __future__ import annotations

from typing import Annotated, Any

from prefect import State
from pydantic import Field

from blocks.http_api import HttpApi
from flows.ticket_escalation.escalating import Escalation
from flows.ticket_escalation.issues import Repository
from tasks.api import open_api
from tasks.connections import load_connection
from tasks.core.intake.inbox.consumer import ConsumerSettings
from tasks.deliveries import handle_deliveries, name_run
from tasks.exports import published_events
from tasks.integration_flow import flow

RepositoryName = Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]


@flow(name="ticket-escalation", flow_run_name=name_run)
async def ticket_escalation(
    repository: RepositoryName,
    label: str = "bug",
    issue_label: str = "from-support",
    application: str = "http-api/own-app",
    github: str = "http-api/github",
    payload: dict[str, Any] | None = None,
    consumer: ConsumerSettings = ConsumerSettings(),  # noqa: B008 - immutable, shown in the run form
) -> State[Any]:
    """Take the waiting ticket events; open, change or close the issue of each ticket that is a bug.

    The issue is closed when the ticket is solved, deleted or loses its label, and opened again with
    it. Its number is told to the application. Retry handles what this run failed to handle.

    Args:
        repository: Where the issues go, as owner/name.
        label: What makes a ticket concern the developers.
        issue_label: What the issues are labelled with at GitHub.
        application: The block of the application whose tickets they are.
        github: The block of GitHub's API.
        payload: A sample event to export in place of what is waiting.
        consumer: How the run goes about waiting deliveries.
    """
    # one attempt a call: retries are the delivery's own, so that they are seen
    once = {"max_attempts": 1}
    own_app = (await load_connection(application, HttpApi)).model_copy(update=once)
    other = (await load_connection(github, HttpApi)).model_copy(update=once)
    with open_api(own_app) as application_api, open_api(other) as github_api:
        escalation = Escalation(
            published_events(application_api),
            application_api,
            Repository(github_api, repository, issue_label),
            label,
            is_sample=payload is not None,
        )
        return await handle_deliveries(
            "ticket_escalation",
            escalation.handle,
            settings=consumer,
            payload=payload,
            event=str((payload or {}).get("type", "")),
        )
