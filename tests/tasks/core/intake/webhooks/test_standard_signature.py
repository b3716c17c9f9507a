"""What we sign, the reference implementation and our own verifier accept."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from standardwebhooks.webhooks import Webhook

from blocks.errors import MisconfiguredError
from tasks.core.intake.webhooks.standard_signature import sign
from tasks.core.intake.webhooks.verifier import verify

NEW, OLD = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "C2FVsBQIhrscChlQIMV+b5sSYspob7oD"


def test_both_secrets_verify():
    """While a secret is being changed, receivers with either one accept the message."""
    now = datetime.now(UTC)
    headers = sign([NEW, OLD], message_id="msg_1", at=now, body=b'{"a":1}')
    for secret in (NEW, OLD):
        Webhook(secret).verify(b'{"a":1}', headers)
        verified = verify(
            "standard-webhooks",
            secrets=[secret],
            method="POST",
            url="https://x",
            headers=headers,
            body=b'{"a":1}',
            now=now,
        )
        assert verified.signed_id == "msg_1"


@pytest.mark.parametrize("secrets", [[], ["whsec_"], ["whsec_***"], [""]])
def test_unusable_secrets(secrets):
    """Nothing is sent with a signature that proves nothing."""
    with pytest.raises(MisconfiguredError):
        sign(secrets, message_id="m", at=datetime.now(UTC), body=b"")
