"""What handlers get."""

from __future__ import annotations

import pytest

from blocks.errors import BadPayloadError
from tasks.core.intake.inbox.delivery import Delivery


def test_sample():
    """A sample looks like a delivery with that payload."""
    sample = Delivery.sample({"a": [1]}, event="push", integration="x", id="sample-1")
    assert sample.json() == {"a": [1]}
    assert (sample.event, sample.idempotency_key) == ("push", "sample-1")
    assert sample.header("anything") is None


@pytest.mark.parametrize("payload", [b"", b"{", b"\xff", b"[" * 200_000])
def test_payload_that_is_not_json(payload):
    """A payload that is not JSON is the sender's fault, and says which delivery."""
    sample = Delivery.sample({}, event="push", integration="x", id="d1")
    broken = Delivery(
        **{name: getattr(sample, name) for name in sample.__slots__} | {"payload": payload}
    )
    with pytest.raises(BadPayloadError, match="'d1': the payload is not JSON"):
        broken.json()
