"""Mails as a partner sends them with an order attached."""

from __future__ import annotations

import uuid
from email.message import EmailMessage


def order_mail(
    order: bytes,
    *,
    sender: str = "Orders <orders@partner.example>",
    file_name: str = "order.json",
) -> bytes:
    """A mail with an order attached."""
    mail = EmailMessage()
    mail["From"] = sender
    mail["To"] = "orders@own.example"
    mail["Subject"] = "A new order"
    mail["Message-ID"] = f"<{uuid.uuid4().hex}@partner.example>"
    mail.set_content("Please find our order attached.\n")
    mail.add_attachment(order, maintype="application", subtype="json", filename=file_name)
    return mail.as_bytes(policy=mail.policy.clone(linesep="\r\n"))
