"""What order events and mails with orders hold, and how they get into the application."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict

from tasks.api import ApiClient
from tasks.core.connectors.messages.received_mail import read_mail
from tasks.data_import import HttpSink
from tasks.deliveries import Delivery, Outcome, dead_letter, done, ignored
from tasks.record_import import BatchResult, ImportItem, Order, RecordImporter

_EVENTS = ("order.placed", "order.changed")
_MAX_REASONS = 5


class OrderEvent(BaseModel):
    """Something happened to an order."""

    model_config = ConfigDict(extra="ignore")

    type: str
    order: Order


def import_orders(api: ApiClient, delivery: Delivery) -> Outcome | None:
    """Import the orders of one delivery, each once however often it is handled.

    An order that is bad, or that the application refuses, dead-letters the delivery; the others
    of its mail go in. A replay after mending brings in what is missing.

    Args:
        api: The application.
        delivery: An order event as JSON, as the gateway passes it on from SNS, or a mail.

    Raises:
        BadPayloadError: The event breaks its contract, or the mail is none.
        UpstreamRejectedError: The application refuses, and names no order.
        TransientError: The application is out of reach, busy or broken.
    """
    if delivery.content_type == "message/rfc822":
        return _import_mail(api, delivery)
    document = _unwrapped(delivery)
    kind = document.get("type") if isinstance(document, dict) else None
    if isinstance(kind, str) and kind not in _EVENTS:
        return ignored(f"{kind} is none of {', '.join(_EVENTS)}")
    event = replace(delivery, payload=orjson.dumps(document)).parse(OrderEvent)
    importer = RecordImporter(HttpSink(api, "orders"), Order, system="order event")
    order = event.order.model_dump(mode="json")
    taken = importer.take([ImportItem(event.order.order_no, delivery.idempotency_key, order)])
    return dead_letter(_told(taken)) if taken.bad else None


def _import_mail(api: ApiClient, delivery: Delivery) -> Outcome:
    mail = read_mail(delivery.body)
    if not mail.attachments:
        return ignored("the mail has no attachment")
    importer = RecordImporter(
        HttpSink(api, "orders"), Order, system=f"mail {delivery.id}", holds_files=True
    )
    taken = importer.take(
        [
            ImportItem(each.name, f"{delivery.idempotency_key}-{number}", each.content, each.name)
            for number, each in enumerate(mail.attachments)
        ]
    )
    if taken.bad:
        return dead_letter(_told(taken))
    return done(f"{taken.counts.records} orders of {len(mail.attachments)} files")


def _told(taken: BatchResult) -> str:
    reasons = []
    for reject in taken.rejects[:_MAX_REASONS]:
        line = f" line {reject.line}" if reject.line else ""
        column = f" {reject.field}" if reject.field else ""
        reasons.append(f"{reject.id}{line}{column}: {reject.reason}")
    counts = taken.counts
    more = counts.rejected - len(reasons)
    also = f"; and {more} more" if more else ""
    return f"{counts.records} orders imported, {counts.rejected} not: {'; '.join(reasons)}{also}"


def _unwrapped(delivery: Delivery) -> Any:
    """The event, without what the gateway tells of the SNS topic that it came from."""
    document = delivery.json()
    if isinstance(document, dict) and "topic_arn" in document:
        return document.get("message")
    return document
