"""How tickets that changed at the helpdesk get into the application."""

from __future__ import annotations

from typing import Any

import orjson

from blocks.errors import UpstreamRejectedError
from flows.support_tickets.tickets import (
    SOURCE,
    HelpdeskTicket,
    digest_of,
    for_application,
    new_for_application,
)
from tasks.api import ApiClient, path_segment
from tasks.data_import import Sent
from tasks.two_way import IdentityMap, LeasedPair

_CREATED, _UPDATED, _UNCHANGED = Sent(created=1), Sent(updated=1), Sent(unchanged=1)


class TicketSink:
    """Brings the application's tickets in step with what the helpdesk decides.

    Tickets are taken one by one: what was taken before an error stays, and is unchanged when the
    same batch comes again. One that has not changed in what the helpdesk decides, such as one that
    we exported, is left alone.

    Args:
        identities: Which ticket is which.
        application: Own app.
    """

    def __init__(self, identities: IdentityMap, application: ApiClient) -> None:
        self._identities = identities
        self._application = application

    def send(self, records: bytes, *, count: int, idempotency_key: str) -> Sent:
        """Take a batch; see `RecordSink.send`."""
        sent, refused = Sent(), []
        refusal: UpstreamRejectedError | None = None
        for index, record in enumerate(orjson.loads(records)):
            try:
                sent += self._take(HelpdeskTicket.model_validate(record))
            except UpstreamRejectedError as error:
                refusal = error
                refused.append({"index": index, "field": "", "reason": error.said or error.message})
        if refusal is not None:
            raise UpstreamRejectedError(
                f"{len(refused)} of {count} tickets were refused",
                system=refusal.system,
                operation="import tickets",
                status=refusal.status,
                details=tuple(refused),
            )
        return sent

    def _take(self, ticket: HelpdeskTicket) -> Sent:
        digest = digest_of(for_application(ticket))
        known = self._identities.find("right", str(ticket.id))
        if known is not None and known.state.get("imported") == digest:
            return _UNCHANGED
        with self._identities.lease(right=str(ticket.id)) as pair:
            if pair.pair.deleted_at is not None:
                return _UNCHANGED
            ticket_no = pair.left or self._exported_as(ticket)
            if ticket_no is None:
                return self._create(pair, ticket, digest)
            return self._update(pair, ticket_no, ticket, digest)

    def _exported_as(self, ticket: HelpdeskTicket) -> str | None:
        """The application's ticket that this one was made for, if it is still there."""
        if not ticket.external_ref:
            return None
        path = f"tickets/{path_segment(ticket.external_ref)}"
        return ticket.external_ref if self._call("GET", path, ticket) is not None else None

    def _create(self, pair: LeasedPair, ticket: HelpdeskTicket, digest: str) -> Sent:
        record = new_for_application(ticket)
        ticket_no = record["ticket_no"]
        self._call("PUT", f"tickets/{path_segment(ticket_no)}", ticket, record)
        pair.store(left=ticket_no, state={**pair.state, "imported": digest})
        return _CREATED

    def _update(
        self, pair: LeasedPair, ticket_no: str, ticket: HelpdeskTicket, digest: str
    ) -> Sent:
        changes = {**for_application(ticket), "external_ids": {"helpdesk": str(ticket.id)}}
        if self._call("PATCH", f"tickets/{path_segment(ticket_no)}", ticket, changes) is None:
            pair.store(left=ticket_no, is_deleted=True)  # a user of the application has deleted it
            return _UNCHANGED
        pair.store(left=ticket_no, state={**pair.state, "imported": digest})
        return _UPDATED

    def _call(
        self, method: str, path: str, ticket: HelpdeskTicket, body: dict[str, Any] | None = None
    ) -> Any:
        """The answer's JSON; None if the application does not have the ticket."""
        try:
            return self._application.call(
                method,
                path,
                json=body,
                headers={"X-Source": SOURCE},
                repeatable=True,
                record=str(ticket.id),
            ).json()
        except UpstreamRejectedError as error:
            if error.status == 404:
                return None
            raise
