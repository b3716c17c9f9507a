"""Open an issue at GitHub for every ticket that is a bug, and let it follow the ticket."""

from __future__ import annotations

from typing import Annotated, Any

from prefect import State
from pydantic import Field

from flows.ticket_escalation.escalating import Escalation
from flows.ticket_escalation.issues import Repository
from tasks.api import open_api_for_deliveries
from tasks.deliveries import ConsumerSettings, handle_deliveries
from tasks.exports import published_events
from tasks.integration_flow import flow, run_name

RepositoryName = Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]


@flow(name="ticket-escalation", flow_run_name=run_name())
async def ticket_escalation(
    repository: RepositoryName,
    label: str = "bug",
    issue_label: str = "from-support",
    application: str = "http-api/own-app",
    github: str = "http-api/github",
    payload: dict[str, Any] | None = None,
    consumer: ConsumerSettings = ConsumerSettings(),
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
    """
    async with (
        open_api_for_deliveries(application) as own_app,
        open_api_for_deliveries(github) as github_api,
    ):
        escalation = Escalation(
            published_events(own_app),
            own_app,
            Repository(github_api, repository, issue_label),
            label,
            is_sample=payload is not None,
        )
        return await handle_deliveries(
            "ticket_escalation",
            escalation.handle,
            settings=consumer,
            payload=payload,
        )
