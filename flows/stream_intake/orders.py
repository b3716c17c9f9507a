"""What order events and mails with orders hold, and how they get into the application."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict

from tasks.plain.application_records import Order
from tasks.plain.http.client import ApiClient
from tasks.plain.inbox.delivery import Delivery, Outcome, done, ignored, parked
from tasks.plain.message_sources.received_mail import Attachment, read_mail
from tasks.plain.records.reading import detect_format, read_records
from tasks.plain.records.record import Reject
from tasks.plain.records.validation import RecordValidator

_EVENTS = ("order.placed", "order.changed")
_MAX_REASONS = 5
_BATCH = 500


class OrderEvent(BaseModel):
    """Something happened to an order."""

    model_config = ConfigDict(extra="ignore")

    type: str
    order: Order


def import_orders(api: ApiClient, delivery: Delivery) -> Outcome | None:
    """Import the orders of one delivery, each once however often it is handled.

    Args:
        api: The application.
        delivery: An order event as JSON, as the gateway passes it on from SNS, or a mail.

    Raises:
        BadPayloadError: The event breaks its contract, or no attachment of a mail can be read.
        TransientError: The application is out of reach, busy or broken.
    """
    if delivery.content_type == "message/rfc822":
        return _import_mail(api, delivery)
    document = _unwrapped(delivery)
    kind = document.get("type") if isinstance(document, dict) else None
    if isinstance(kind, str) and kind not in _EVENTS:
        return ignored(f"{kind} is none of {', '.join(_EVENTS)}")
    event = replace(delivery, payload=orjson.dumps(document)).parse(OrderEvent)
    _send(api, [event.order], delivery.idempotency_key)
    return None


def _import_mail(api: ApiClient, delivery: Delivery) -> Outcome:
    mail = read_mail(delivery.body)
    if not mail.attachments:
        return ignored("the mail has no attachment")
    orders: list[Order] = []
    rejects: list[str] = []
    for attachment in mail.attachments:
        for item in _records(attachment, delivery.id):
            if isinstance(item, Order):
                orders.append(item)
            else:
                rejects.append(f"{attachment.name} line {item.line} {item.column}: {item.reason}")
    for at in range(0, len(orders), _BATCH):
        _send(api, orders[at : at + _BATCH], f"{delivery.idempotency_key}-{at}")
    if rejects:
        more = f"; and {len(rejects) - _MAX_REASONS} more" if len(rejects) > _MAX_REASONS else ""
        reasons = "; ".join(rejects[:_MAX_REASONS])
        return parked(f"{len(orders)} orders imported, {len(rejects)} not: {reasons}{more}")
    return done(f"{len(orders)} orders of {len(mail.attachments)} files")


def _records(attachment: Attachment, delivery_id: str) -> Iterator[Order | Reject]:
    with tempfile.TemporaryDirectory(prefix="mail-") as directory:
        path = Path(directory) / "attachment"  # its name comes from a stranger
        path.write_bytes(attachment.content)
        records = read_records(
            path, detect_format(attachment.name), system=f"mail {delivery_id}", name=attachment.name
        )
        for item in RecordValidator(Order).validate(records):
            yield item if isinstance(item, Reject) else item.item


def _send(api: ApiClient, orders: Sequence[Order], idempotency_key: str) -> None:
    api.call(
        "POST",
        "orders/batch",
        json={"records": [order.model_dump(mode="json") for order in orders]},
        idempotency_key=idempotency_key,
        operation="import orders",
        record=orders[0].order_no,
    )


def _unwrapped(delivery: Delivery) -> Any:
    """The event, without what the gateway tells of the SNS topic that it came from."""
    document = delivery.json()
    if isinstance(document, dict) and "topic_arn" in document:
        return document.get("message")
    return document
