"""How one order event is exported: checked, filtered, sent, and the answer told to own app."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from blocks.errors import UpstreamRejectedError
from flows.order_events_export.rules import Rules
from tasks.api import ApiClient, is_outdated, path_segment
from tasks.core.connectors.http.templated_request import send_request
from tasks.deliveries import Delivery, Outcome, dead_letter, done, ignored
from tasks.exports import PublishedEvents

SOURCE = "order-events-export"
_NOT_OF_THE_USER = {"external_ids", "changed_at", "version"}


@dataclass(frozen=True, slots=True)
class OrderExport:
    """What an export needs; threads may share it.

    Attributes:
        published: Which events own app sends, and how they look.
        rules: Which of them go where.
        application: Own app, where orders are read and answers told.
        destination: The other system.
        skips_outdated: Whether the order is read, so that an event that is handled late, or
            replayed, never brings back an old state. A sample's order may not be there.
    """

    published: PublishedEvents
    rules: Rules
    application: ApiClient
    destination: ApiClient
    skips_outdated: bool = True

    def handle(self, delivery: Delivery) -> Outcome | None:
        """Export one event.

        Every effect carries the delivery's key, so a repetition has none; the other side's
        refusal dead-letters the delivery in that side's own words.

        Raises:
            BadPayloadError: The event is not as published, or the template does not fit it.
            TransientError: Own app or the other system is out of reach, busy or broken.
        """
        event = self.published.check(delivery)
        order_no = str(event["data"]["order_no"])
        if event["source"] == SOURCE:
            return ignored("our own change: told to own app after an export")
        if self.skips_outdated and self._is_outdated(event, order_no):
            return ignored("the order has changed since: its later event counts")
        found = self.rules.first_for(event)
        if found is None:
            return ignored("no rule wants it")
        request, write_back = found
        key = delivery.idempotency_key
        try:
            answer = send_request(
                self.destination, request, event, idempotency_key=key, record=order_no
            )
        except UpstreamRejectedError as refusal:
            return dead_letter(
                f"{refusal.explained}; correct the order, whose change is sent then, or replay "
                "once the other side takes it"
            )
        if write_back is not None:
            send_request(
                self.application,
                write_back,
                {**event, "answer": answer},
                idempotency_key=f"{key}-written-back",
                record=order_no,
                headers={"X-Source": SOURCE},
            )
        return done(", ".join(f"{name} {value}" for name, value in answer.items()))

    def _is_outdated(self, event: dict[str, Any], order_no: str) -> bool:
        return is_outdated(
            self.application,
            f"orders/{path_segment(order_no)}",
            event["data"],
            is_deletion=event["type"] == "order.deleted",
            not_compared=_NOT_OF_THE_USER,
            name=order_no,
        )
