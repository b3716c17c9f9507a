"""The GitHub issue of a ticket: what it says, how it is found again, opened and changed.

Source: docs.github.com/en/rest/issues/issues.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from blocks.errors import UnreachableError
from tasks.api import ApiClient, LinkHeader, OutcomeUnknownError
from tasks.core.connectors.http.paging import fetch_records

_LONGEST_TITLE = 250
_LONGEST_BODY = 60_000
# An issue that an attempt opened and could not tell of is at most this much older than the event.
_LOOK_BACK = timedelta(days=1)
_OPEN = {"open", "pending"}


@dataclass(frozen=True, slots=True)
class Issue:
    """One issue as it shall be.

    Attributes:
        ticket_no: Whose issue it is.
        title: At most 250 characters.
        body: Markdown, with the marker by which it is found.
        is_open: Whether there is still something to do.
    """

    ticket_no: str
    title: str
    body: str
    is_open: bool


def issue_of(ticket: Mapping[str, Any], *, label: str, is_deleted: bool) -> Issue:
    """The issue for a ticket: open as long as the ticket is, and has the label.

    Args:
        ticket: As own app tells it.
        label: What makes a ticket concern the developers.
        is_deleted: Whether the ticket is no more.
    """
    is_open = not is_deleted and ticket["status"] in _OPEN and label in ticket["labels"]
    text = _plain(ticket["description"] or "")[:_LONGEST_BODY]
    about = f"Ticket {_plain(ticket['ticket_no'])}, priority {ticket['priority']}."
    return Issue(
        ticket["ticket_no"],
        " ".join(ticket["title"].split())[:_LONGEST_TITLE] or f"Ticket {ticket['ticket_no']}",
        f"{text}\n\n{about}\n\n{_marker(ticket['ticket_no'])}",
        is_open,
    )


@dataclass(frozen=True, slots=True)
class Repository:
    """The issues of one repository that are ours.

    Attributes:
        api: GitHub.
        name: As owner/name.
        label: What our issues are labelled with, so that they can be listed.
    """

    api: ApiClient
    name: str
    label: str

    def find(self, ticket_no: str, *, told_at: datetime) -> int | None:
        """The issue that an earlier attempt opened for a ticket without being able to tell of it.

        Args:
            ticket_no: The ticket's number.
            told_at: When the event came that is handled.
        """
        params = {
            "labels": self.label,
            "state": "all",
            "since": (told_at - _LOOK_BACK).isoformat(),
            "per_page": 100,
        }
        issues = fetch_records(self.api, self._path, LinkHeader(), params=params)
        marker = _marker(ticket_no)
        return next(
            (int(each["number"]) for each in issues if marker in (each["body"] or "")), None
        )

    def open(self, issue: Issue) -> int:
        """Open an issue; returns its number.

        Raises:
            UnreachableError: The answer was lost, and the issue may be there: look for it first.
        """
        try:
            answer = self.api.call(
                "POST",
                self._path,
                json={"title": issue.title, "body": issue.body, "labels": [self.label]},
                operation="open issue",
                record=issue.ticket_no,
            )
        except OutcomeUnknownError as error:
            raise UnreachableError(
                "the answer was lost; the next attempt looks whether the issue is there",
                system=error.system,
                operation=error.operation,
                record=error.record,
            ) from error
        return int(answer.json()["number"])

    def change(self, number: int, issue: Issue) -> None:
        """Let an issue say what it shall; the same again changes nothing."""
        self.api.call(
            "PATCH",
            f"{self._path}/{number}",
            json={
                "title": issue.title,
                "body": issue.body,
                "state": "open" if issue.is_open else "closed",
            },
            repeatable=True,
            operation="change issue",
            record=issue.ticket_no,
        )

    @property
    def _path(self) -> str:
        return f"repos/{self.name}/issues"


def _marker(ticket_no: str) -> str:
    return f"<!-- own-app-ticket {ticket_no.encode().hex()} -->"


def _plain(text: str) -> str:
    """What customers write mentions nobody, refers to no issue and hides nothing."""
    return text.replace("<!--", "<! --").replace("@", "@\u200b").replace("#", "#\u200b")
