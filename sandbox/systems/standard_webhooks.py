"""Signs what the sandbox's senders send by Standard Webhooks."""

from __future__ import annotations

from datetime import datetime

from tasks.core.intake.webhooks.standard_signature import sign


def signed_headers(secret: str, message_id: str, body: bytes, *, now: datetime) -> dict[str, str]:
    """The three headers of one attempt.

    Args:
        secret: Base64, with or without "whsec_" before it.
        message_id: The same for every attempt at one event.
        body: As it is sent.
        now: Aware instant of this attempt.

    Raises:
        MisconfiguredError: The secret is no base64.
    """
    return sign([secret], message_id=message_id, at=now, body=body)
