"""What a ticket is on either side, and which side decides what of it.

The application decides title, description, priority, requester and labels; the helpdesk decides
status and assignee. Each side's words are translated here and nowhere else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, Field, StringConstraints

from tasks.api import BodyCursor
from tasks.data_import import IncrementalList

SOURCE = "support-tickets"  # what own app is told as the source of our changes
KIND = "support_tickets"  # of pairs: left is the application's ticket, right the helpdesk's
DECIDED_BY_HELPDESK = {"status", "assignee"}
# What of a ticket no user of the application writes.
NOT_OF_THE_USER = DECIDED_BY_HELPDESK | {"external_ids", "changed_at", "version"}

CHANGED_TICKETS = IncrementalList(
    path="tickets",
    pagination=BodyCursor(records_path="tickets"),
    params={"limit": 50},
)
_LONGEST_SUBJECT = 150
_PRIORITIES = {"low": 1, "normal": 2, "high": 3, "urgent": 4}
_PRIORITY_NAMES = {number: name for name, number in _PRIORITIES.items()}
_STATES = {"open": "new", "pending": "waiting", "solved": "resolved", "closed": "closed"}
_STATUSES = {state: status for status, state in _STATES.items()} | {"in_progress": "open"}

Text = Annotated[str, StringConstraints(max_length=10_000)]


class HelpdeskTicket(BaseModel):
    """A ticket as the helpdesk shows it."""

    id: int
    subject: Annotated[str, StringConstraints(min_length=1, max_length=1000)]
    body: Text = ""
    state: Literal["new", "in_progress", "waiting", "resolved", "closed"]
    priority: int = Field(ge=1, le=4)
    requester_email: str | None = None
    tags: list[Annotated[str, StringConstraints(min_length=1, max_length=200)]] = []
    external_ref: str | None = None
    assignee: Text | None = None


def shown_fields(shown: Mapping[str, Any]) -> dict[str, Any]:
    """Of what the helpdesk shows, the fields that count here."""
    return {name: shown[name] for name in HelpdeskTicket.model_fields if name in shown}


def for_helpdesk(ticket: Mapping[str, Any]) -> dict[str, Any]:
    """What the application decides, in the helpdesk's words."""
    return {
        "subject": " ".join(ticket["title"].split())[:_LONGEST_SUBJECT],
        "body": ticket["description"] or "",
        "priority": _PRIORITIES[ticket["priority"]],
        "requester_email": ticket["requester"],
        "tags": ticket["labels"],
    }


def new_for_helpdesk(ticket: Mapping[str, Any]) -> dict[str, Any]:
    """A ticket that the helpdesk has not yet: it is told the status once, and whose it is."""
    return {
        **for_helpdesk(ticket),
        "state": _STATES[ticket["status"]],
        "external_ref": ticket["ticket_no"],
    }


def for_application(ticket: HelpdeskTicket) -> dict[str, Any]:
    """What the helpdesk decides, in the application's words."""
    return {"status": _STATUSES[ticket.state], "assignee": ticket.assignee}


def new_for_application(ticket: HelpdeskTicket) -> dict[str, Any]:
    """A ticket that began at the helpdesk."""
    return {
        "ticket_no": f"HD-{ticket.id}",
        "title": ticket.subject,
        "description": ticket.body,
        "priority": _PRIORITY_NAMES[ticket.priority],
        "requester": ticket.requester_email,
        "labels": ticket.tags,
        **for_application(ticket),
        "external_ids": {"helpdesk": str(ticket.id)},
    }


def digest_of(content: Mapping[str, Any]) -> str:
    """What tells whether a side's part of a ticket is as it was when it was last in step."""
    written = orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(written, digest_size=16).hexdigest()
