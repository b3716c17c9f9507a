"""Signs outgoing messages as in Standard Webhooks: id, time and body together.

Source: https://www.standardwebhooks.com.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from datetime import datetime

from blocks.errors import MisconfiguredError


def sign(secrets: Sequence[str], *, message_id: str, at: datetime, body: bytes) -> dict[str, str]:
    """Return the headers that sign a message.

    Args:
        secrets: Base64, with or without a "whsec_" prefix; each one signs, so that receivers can
            change theirs without a gap.
        message_id: The same on every attempt to send this message.
        at: Aware instant of this attempt.
        body: Exactly as sent.

    Raises:
        MisconfiguredError: There is no secret, or one is not base64.
    """
    sent_at = str(int(at.timestamp()))
    signed = b".".join([message_id.encode(), sent_at.encode(), body])
    signatures = [
        base64.b64encode(hmac.new(_key(each), signed, hashlib.sha256).digest()).decode()
        for each in secrets
    ]
    if not signatures:
        raise _misconfigured("there is no secret to sign with; give at least one")
    return {
        "webhook-id": message_id,
        "webhook-timestamp": sent_at,
        "webhook-signature": " ".join(f"v1,{each}" for each in signatures),
    }


def _key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError) as exc:
        raise _misconfigured("the secret is no base64, with or without whsec_ before it") from exc
    if not key:
        raise _misconfigured("the secret is empty")
    return key


def _misconfigured(message: str) -> MisconfiguredError:
    return MisconfiguredError(message, system="webhook standard-webhooks", operation="sign")
