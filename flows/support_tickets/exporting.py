"""How one ticket event of the application gets to the helpdesk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from blocks.errors import UpstreamRejectedError
from flows.support_tickets.tickets import (
    NOT_OF_THE_USER,
    SOURCE,
    digest_of,
    for_helpdesk,
    new_for_helpdesk,
)
from tasks.api import ApiClient, is_outdated, path_segment
from tasks.deliveries import Delivery, Outcome, dead_letter, done, ignored
from tasks.exports import PublishedEvents
from tasks.two_way import IdentityMap, LeasedPair


@dataclass(frozen=True, slots=True)
class TicketExport:
    """What it takes; threads may share it.

    Attributes:
        published: Which events own app sends, and how they look.
        application: Own app.
        helpdesk: Where tickets go.
        identities: Which ticket is which.
        is_sample: The ticket is not looked up: it may not be there.
    """

    published: PublishedEvents
    application: ApiClient
    helpdesk: ApiClient
    identities: IdentityMap
    is_sample: bool = False

    def handle(self, delivery: Delivery) -> Outcome | None:
        """Bring the helpdesk's ticket in step with what the application decides.

        Raises:
            BadPayloadError: The event is not as published.
            TransientError: Either side is out of reach, busy or broken, or the other flow is at
                this ticket just now.
        """
        event = self.published.check(delivery)
        if event["source"] == SOURCE:
            return ignored("our own change: it came from the helpdesk")
        ticket, is_deleted = event["data"], event["type"] == "ticket.deleted"
        if not self.is_sample and self._is_outdated(ticket, is_deleted=is_deleted):
            return ignored("the ticket has changed since: its later event counts")
        with self.identities.lease(left=ticket["ticket_no"]) as pair:
            try:
                if is_deleted:
                    return self._delete(pair)
                return self._bring_in_step(pair, ticket, delivery.idempotency_key)
            except UpstreamRejectedError as refusal:
                return dead_letter(
                    f"{refusal.explained}; correct the ticket, whose change is sent then, or "
                    "replay once the helpdesk takes it"
                )

    def _bring_in_step(self, pair: LeasedPair, ticket: dict[str, Any], key: str) -> Outcome:
        content = for_helpdesk(ticket)
        digest = digest_of(content)
        id_ = None
        if pair.pair.deleted_at is None:
            id_ = pair.right or (ticket["external_ids"] or {}).get("helpdesk")
        id_ = id_ or self._made_before(ticket)
        if id_ is None:
            id_ = self._create(ticket, key)
            outcome = done(f"helpdesk ticket {id_} made")
        elif pair.state.get("exported") == digest:
            outcome = ignored("nothing changed of what the helpdesk has of it")
        else:
            self._call("PATCH", f"tickets/{path_segment(id_)}", content, ticket, f"{key}-changed")
            outcome = done(f"helpdesk ticket {id_} changed")
        pair.store(right=id_, state={**pair.state, "exported": digest}, is_deleted=False)
        if not self.is_sample and (ticket["external_ids"] or {}).get("helpdesk") != id_:
            self._tell(ticket, id_)
        return outcome

    def _made_before(self, ticket: dict[str, Any]) -> str | None:
        """The id that an attempt got which died before it could be kept."""
        found = self.helpdesk.call(
            "GET",
            "tickets",
            params={"external_ref": ticket["ticket_no"]},
            operation="look for ticket",
            record=ticket["ticket_no"],
        ).json()["tickets"]
        return str(found[0]["id"]) if found else None

    def _create(self, ticket: dict[str, Any], key: str) -> str:
        made = self._call("POST", "tickets", new_for_helpdesk(ticket), ticket, f"{key}-made")
        return str(made["id"])

    def _delete(self, pair: LeasedPair) -> Outcome:
        if pair.right is None or pair.pair.deleted_at is not None:
            return ignored("the helpdesk does not have it")
        try:
            self.helpdesk.call("DELETE", f"tickets/{path_segment(pair.right)}", record=pair.left)
        except UpstreamRejectedError as error:
            if error.status != 404:
                raise
        pair.store(is_deleted=True)
        return done(f"helpdesk ticket {pair.right} deleted")

    def _call(
        self, method: str, path: str, content: dict[str, Any], ticket: dict[str, Any], key: str
    ) -> Any:
        return self.helpdesk.call(
            method, path, json=content, idempotency_key=key, record=ticket["ticket_no"]
        ).json()

    def _tell(self, ticket: dict[str, Any], id_: str) -> None:
        self.application.call(
            "PATCH",
            f"tickets/{path_segment(ticket['ticket_no'])}",
            json={"external_ids": {"helpdesk": id_}},
            headers={"X-Source": SOURCE},
            repeatable=True,
            operation="tell helpdesk's id",
            record=ticket["ticket_no"],
        )

    def _is_outdated(self, ticket: dict[str, Any], *, is_deleted: bool) -> bool:
        return is_outdated(
            self.application,
            f"tickets/{path_segment(ticket['ticket_no'])}",
            ticket,
            is_deletion=is_deleted,
            not_compared=NOT_OF_THE_USER,
            name=ticket["ticket_no"],
        )
