"""What an endpoint may declare whose callers wait, and what is told of mistakes."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from tasks.core.registry.declarations import EndpointDeclaration

GOOD = {"path": "/quotes", "scheme": "none", "synchronous": {}}
SIGNED = {"signed_by": "callback-signature/quotes"}


def test_the_usual_limits_need_no_word():
    """An empty declaration is one."""
    declared = EndpointDeclaration(**GOOD).synchronous
    assert (declared.deadline_s, declared.max_waiting, declared.callback) == (10, 200, None)
    assert EndpointDeclaration(path="/q", scheme="none").synchronous is None


def test_callbacks():
    """Headers are found in whatever case they are declared."""
    callback = {**SIGNED, "header": "X-Callback-Url", "allowed_networks": ["10.0.0.0/8"]}
    declared = EndpointDeclaration(**{**GOOD, "synchronous": {"callback": callback}})
    assert declared.synchronous.callback.header == "x-callback-url"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"synchronous": {"deadline": 5}}, "deadline.*not permitted"),
        ({"synchronous": {"deadline_s": 0}}, "greater than 0"),
        ({"synchronous": {"callback": SIGNED}}, "url, header or field"),
        ({"synchronous": {"callback": {"url": "https://x", "signed_by": "x"}}}, "signed_by"),
        ({"synchronous": {"callback": {**SIGNED, "url": "ftp://x"}}}, "https"),
        ({"synchronous": {"callback": {**SIGNED, "url": "https://a:b@x"}}}, "password"),
        ({"is_batch": True}, "by itself"),
        ({"events": ["quote"]}, "by itself"),
        ({"path": "/requests/quotes"}, "none of .*/requests/"),
    ],
)
def test_mistakes(change, says):
    """Each says what may stand there."""
    with pytest.raises(ValidationError, match=f"(?s){says}"):
        EndpointDeclaration(**{**GOOD, **change})
