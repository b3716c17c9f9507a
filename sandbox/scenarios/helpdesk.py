"""The helpdesk, its agents, and the customers who write to it or to the application."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import count
from typing import Any

from blocks.http_api import HttpApi
from sandbox.scenarios import Sandbox
from sandbox.systems import helpdesk_api
from sandbox.systems.helpdesk_api import HelpdeskSandbox

_WRITE_EVERY_S = 75
_WORK_EVERY_S = 45
_QUESTIONS = (
    ("Where is my parcel?", ["shipping"]),
    ("The export button does nothing", ["bug"]),
    ("Please change our invoice address", ["billing"]),
    ("The search finds nothing with umlauts", ["bug", "search"]),
)
_NEXT_STATE = {"new": "in_progress", "in_progress": "resolved", "waiting": "in_progress"}
_AGENTS = ("Bo", "Chloé", "Dmitri")


@contextmanager
def run(sandbox: Sandbox) -> Iterator[None]:
    """Serve; now and then a customer writes, and an agent goes on with a ticket."""
    application = sandbox.blocks["http-api/own-app"]
    assert isinstance(application, HttpApi)  # noqa: S101 - the sandbox made it
    numbers = count()
    with helpdesk_api.start(file=sandbox.data / "helpdesk.json") as helpdesk:
        sandbox.blocks["http-api/helpdesk"] = helpdesk.block()

        def ask() -> None:
            number = next(numbers)
            title, labels = _QUESTIONS[number % len(_QUESTIONS)]
            if number % 3 == 2:
                helpdesk.add(subject=title, body="Sent by mail.", tags=labels)
                return
            ticket = _ticket(title, labels)
            with application.get_client() as client:
                client.put(f"tickets/{ticket['ticket_no']}", json=ticket).raise_for_status()

        def work() -> None:
            _go_on(helpdesk)

        sandbox.every(_WRITE_EVERY_S, ask)
        sandbox.every(_WORK_EVERY_S, work)
        yield


def _ticket(title: str, labels: list[str]) -> dict[str, Any]:
    return {
        "ticket_no": f"T-{datetime.now(UTC):%m%d%H%M%S}",
        "title": title,
        "description": "Asked in the application.",
        "status": "open",
        "priority": "normal",
        "requester": "ines.alvarez@example.com",
        "labels": labels,
    }


def _go_on(helpdesk: HelpdeskSandbox) -> None:
    """An agent takes the oldest ticket that is not resolved one step further."""
    open_ids = [
        id_ for id_, ticket in sorted(helpdesk.tickets.items()) if ticket["state"] in _NEXT_STATE
    ]
    if open_ids:
        state = helpdesk.tickets[open_ids[0]]["state"]
        agent = _AGENTS[open_ids[0] % len(_AGENTS)]
        helpdesk.change(open_ids[0], state=_NEXT_STATE[state], assignee=agent)
