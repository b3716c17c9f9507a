"""Signs what the sandbox's senders send by Standard Webhooks.

Source: github.com/standard-webhooks/standard-webhooks, spec §"Signature scheme".
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from datetime import datetime

from blocks.errors import MisconfiguredError


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
    sent_at = str(int(now.timestamp()))
    signed = b".".join([message_id.encode(), sent_at.encode(), body])
    digest = hmac.new(_key(secret), signed, hashlib.sha256).digest()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": sent_at,
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }


def _key(secret: str) -> bytes:
    try:
        return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except binascii.Error as exc:
        raise MisconfiguredError(
            "the secret is no base64, with or without whsec_ before it",
            system="sample",
            operation="send",
        ) from exc
