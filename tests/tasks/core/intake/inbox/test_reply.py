"""What flows may answer, and what callers are told of failures."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from pydantic import BaseModel

from blocks.errors import (
    BadPayloadError,
    LeaseLostError,
    MisconfiguredError,
    UnreachableError,
    UpstreamBusyError,
    UpstreamFailedError,
)
from tasks.core.intake.inbox.reply import MAX_REPLY_BYTES, Reply, failure_reply

WHERE = {"system": "https://tax.internal", "operation": "calculate", "record": "secret-7"}


class Price(BaseModel):
    amount: Decimal


def test_json_is_the_default():
    """Whatever is no answer is answered as JSON; amounts stay exact."""
    assert Reply.of({"price": Decimal("1.10")}).body == b'{"price":"1.10"}'
    assert Reply.of(Price(amount=Decimal("1.10"))).body == b'{"amount":"1.10"}'
    answer = Reply.json([1], status=201, headers=[("ETag", '"a"')])
    assert Reply.of(answer) is answer
    assert (answer.status, answer.content_type) == (201, "application/json")


def test_files_keep_their_names():
    """A file is saved under its name, whatever that holds."""
    answer = Reply.file(b"%PDF", name='Angebot "ä".pdf', content_type="application/pdf")
    assert answer.headers == (
        ("Content-Disposition", "attachment; filename*=UTF-8''Angebot%20%22%C3%A4%22.pdf"),
    )


@pytest.mark.parametrize(
    "values",
    [
        {"status": 199},
        {"status": 600},
        {"status": 204, "body": b"x"},
        {"body": bytes(MAX_REPLY_BYTES + 1)},
        {"headers": (("X-A", "a\r\nSet-Cookie: b"),)},
        {"headers": (("X A", "a"),)},
        {"headers": (("Content-Length", "3"),)},
        {"headers": (("Transfer-Encoding", "chunked"),)},
        {"content_type": "text/plain\n"},
    ],
)
def test_answers_that_break_http_are_refused(values):
    """No flow can smuggle a header or confuse the connection."""
    with pytest.raises(ValueError, match=r"answer|header"):
        Reply(**values)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UpstreamBusyError("spent", **WHERE, retry_after_s=30), 503),
        (UnreachableError("no connection", **WHERE), 502),
        (UpstreamFailedError("it answered 500", **WHERE), 502),
        (LeaseLostError("late", **WHERE), 504),
        (MisconfiguredError("wrong password hunter2", **WHERE), 500),
        (BadPayloadError("no JSON", **WHERE), 500),
        (None, 500),
    ],
)
def test_failures_tell_the_run_and_nothing_internal(error, status):
    """A fitting status, the run's id, and no system, operation, record or message of ours."""
    answer = failure_reply(error, "run-1")
    document = json.loads(answer.body)
    assert (answer.status, document["status"], document["run"]) == (status, status, "run-1")
    assert answer.content_type == "application/problem+json"
    text = answer.body.decode()
    assert not any(word in text for word in ("tax", "calculate", "secret-7", "hunter2"))


def test_busy_asks_for_the_same_wait():
    """What another system asks us to wait, we ask of the caller."""
    answer = failure_reply(UpstreamBusyError("spent", **WHERE, retry_after_s=30), "run-1")
    assert dict(answer.headers) == {"Retry-After": "30"}
