"""How one ticket event is exported: checked, filtered, sent to GitHub, told to own app."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from blocks.errors import UpstreamRejectedError
from flows.ticket_escalation.issues import Repository, issue_of
from tasks.api import ApiClient, is_outdated, path_segment
from tasks.deliveries import Delivery, Outcome, dead_letter, done, ignored
from tasks.exports import PublishedEvents

SOURCE = "ticket-escalation"
_NOT_OF_THE_USER = {"external_ids", "changed_at", "version"}


@dataclass(frozen=True, slots=True)
class Escalation:
    """What it takes; threads may share it.

    Attributes:
        published: Which events own app sends, and how they look.
        application: Own app.
        repository: Where the issues are.
        label: What makes a ticket concern the developers.
        is_sample: The ticket is not looked up: it may not be there.
    """

    published: PublishedEvents
    application: ApiClient
    repository: Repository
    label: str
    is_sample: bool = False

    def handle(self, delivery: Delivery) -> Outcome | None:
        """Open, change or close the issue of one ticket.

        GitHub knows no idempotency keys, so an issue is looked for before one is opened.

        Raises:
            BadPayloadError: The event is not as published.
            TransientError: Own app or GitHub is out of reach, busy or broken.
        """
        event = self.published.check(delivery)
        ticket = event["data"]
        ticket_no = ticket["ticket_no"]
        if event["source"] == SOURCE:
            return ignored("our own change: told to own app after an export")
        is_deleted = event["type"] == "ticket.deleted"
        if not self.is_sample and self._is_outdated(ticket, is_deleted=is_deleted):
            return ignored("the ticket has changed since: its later event counts")
        known = self._known(ticket)
        if known is None and self.label not in ticket["labels"]:
            return ignored(f"without the label {self.label!r} it is no matter for developers")
        issue = issue_of(ticket, label=self.label, is_deleted=is_deleted)
        number = known or self.repository.find(ticket_no, told_at=delivery.received_at)
        if number is None and not issue.is_open:
            return ignored("there is nothing to do, and there never was an issue")
        try:
            if number is None:
                number = self.repository.open(issue)
            else:
                self.repository.change(number, issue)
        except UpstreamRejectedError as refusal:
            return dead_letter(
                f"{refusal.explained}; mend it at GitHub or in the ticket, then replay"
            )
        if known is None and not is_deleted and not self.is_sample:
            self._tell(ticket_no, number, key=delivery.idempotency_key)
        return done(f"{self.repository.name}#{number} is {'open' if issue.is_open else 'closed'}")

    def _known(self, ticket: dict[str, Any]) -> int | None:
        """The number that own app was told, if it is one of this repository."""
        name, _, number = (ticket["external_ids"] or {}).get("github", "").rpartition("#")
        return int(number) if name == self.repository.name and number.isdecimal() else None

    def _tell(self, ticket_no: str, number: int, *, key: str) -> None:
        self.application.call(
            "PATCH",
            f"tickets/{path_segment(ticket_no)}",
            json={"external_ids": {"github": f"{self.repository.name}#{number}"}},
            headers={"X-Source": SOURCE},
            idempotency_key=f"{key}-written-back",
            operation="tell issue's number",
            record=ticket_no,
        )

    def _is_outdated(self, ticket: dict[str, Any], *, is_deleted: bool) -> bool:
        return is_outdated(
            self.application,
            f"tickets/{path_segment(ticket['ticket_no'])}",
            ticket,
            is_deletion=is_deleted,
            not_compared=_NOT_OF_THE_USER,
            name=ticket["ticket_no"],
        )
