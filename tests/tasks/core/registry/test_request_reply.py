"""What an endpoint may declare whose callers wait, and what is told of mistakes."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from tasks.core.registry.declarations import EndpointDeclaration

GOOD = {"path": "/quotes", "scheme": "none", "request_reply": {}}
SIGNED = {"signed_by": "callback-signature/quotes"}


def test_the_usual_limits_need_no_word():
    """An empty declaration is one."""
    declared = EndpointDeclaration(**GOOD).request_reply
    assert (declared.deadline_s, declared.max_waiting, declared.callback) == (10, 200, None)
    assert EndpointDeclaration(path="/q", scheme="none").request_reply is None


def test_callbacks():
    """Headers are found in whatever case they are declared."""
    callback = {**SIGNED, "header": "X-Callback-Url", "allowed_networks": ["10.0.0.0/8"]}
    declared = EndpointDeclaration(**{**GOOD, "request_reply": {"callback": callback}})
    assert declared.request_reply.callback.header == "x-callback-url"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"request_reply": {"deadline": 5}}, "deadline.*not permitted"),
        ({"request_reply": {"deadline_s": 0}}, "greater than 0"),
        ({"request_reply": {"callback": SIGNED}}, "url, header or field"),
        ({"request_reply": {"callback": {"url": "https://x", "signed_by": "x"}}}, "signed_by"),
        ({"request_reply": {"callback": {**SIGNED, "url": "ftp://x"}}}, "https"),
        ({"request_reply": {"callback": {**SIGNED, "url": "https://a:b@x"}}}, "password"),
        ({"is_batch": True}, "its own reply"),
        ({"events": ["quote"]}, "its own reply"),
        ({"path": "/requests/quotes"}, "none of .*/requests/"),
    ],
)
def test_mistakes(change, says):
    """Each says what may stand there."""
    with pytest.raises(ValidationError, match=f"(?s){says}"):
        EndpointDeclaration(**{**GOOD, **change})
