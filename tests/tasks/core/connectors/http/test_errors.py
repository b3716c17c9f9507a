"""Every failure of HTTP has its place in the error tree, and tells no secret."""

from __future__ import annotations

import inspect
import pickle
import ssl
from datetime import UTC, datetime

import httpx
import pytest

from blocks.errors import (
    BadPayloadError,
    MisconfiguredError,
    PermanentError,
    UnreachableError,
    UpstreamBusyError,
    UpstreamFailedError,
    UpstreamRejectedError,
)
from tasks.core.connectors.http.errors import (
    OutcomeUnknownError,
    Where,
    from_httpx,
    from_status,
    never_left,
    problem_details,
)

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
WHERE = Where(system="https://api.example", operation="POST /orders", record="O-1")
PROBLEM = {"Content-Type": "application/problem+json"}
# Base classes, and what only a wrong use of httpx raises.
NOT_FROM_CALLS = {"HTTPError", "RequestError", "TransportError", "ProtocolError"}
NOT_FROM_CALLS |= {"HTTPStatusError", "CookieConflict"}


def exceptions_of_httpx():
    return [
        kind
        for _, kind in inspect.getmembers(httpx, inspect.isclass)
        if issubclass(kind, Exception)
        and kind.__name__ not in NOT_FROM_CALLS
        and not issubclass(kind, httpx.StreamError)
    ]


def made(kind):
    return kind("secret") if kind is httpx.InvalidURL else kind("secret", request=None)


def refused(status, headers=None, body=b""):
    return from_status(status, httpx.Headers(headers), body, WHERE, now=NOON)


@pytest.mark.parametrize("kind", exceptions_of_httpx(), ids=lambda kind: kind.__name__)
def test_every_exception_of_httpx_is_mapped(kind):
    """No exception of httpx ends in the catch-all, and none puts its own text in the message."""
    error = from_httpx(made(kind), WHERE)
    assert type(error) in {UnreachableError, MisconfiguredError, BadPayloadError}
    assert "secret" not in str(error)
    assert (error.system, error.operation, error.record) == tuple(WHERE.values())


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (httpx.ConnectError, UnreachableError),
        (httpx.ReadTimeout, UnreachableError),
        (httpx.RemoteProtocolError, UnreachableError),
        (httpx.LocalProtocolError, MisconfiguredError),
        (httpx.UnsupportedProtocol, MisconfiguredError),
        (httpx.InvalidURL, MisconfiguredError),
        (httpx.DecodingError, BadPayloadError),
    ],
)
def test_exceptions_have_their_class(kind, expected):
    """What may pass by itself is transient, what is ours to mend is not."""
    assert type(from_httpx(made(kind), WHERE)) is expected


def test_unknown_exception_is_permanent():
    """A retry must be earned: what is not mapped is permanent."""
    error = from_httpx(ValueError("secret"), WHERE)
    assert type(error) is PermanentError
    assert "secret" not in str(error)


def test_untrusted_certificate_is_ours_to_mend():
    """A certificate that is not trusted is no passing failure."""
    exc = httpx.ConnectError("…")
    exc.__cause__ = OSError()
    exc.__cause__.__context__ = ssl.SSLCertVerificationError()
    assert type(from_httpx(exc, WHERE)) is MisconfiguredError


@pytest.mark.parametrize("kind", exceptions_of_httpx(), ids=lambda kind: kind.__name__)
def test_only_failures_to_connect_leave_nothing_behind(kind):
    """Of all exceptions, only those before sending say that nothing was sent."""
    before = kind in (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
    assert never_left(made(kind)) is before


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (301, MisconfiguredError),
        (400, UpstreamRejectedError),
        (401, MisconfiguredError),
        (403, MisconfiguredError),
        (404, UpstreamRejectedError),
        (408, UpstreamBusyError),
        (409, UpstreamRejectedError),
        (422, UpstreamRejectedError),
        (429, UpstreamBusyError),
        (500, UpstreamFailedError),
        (501, UpstreamFailedError),
        (503, UpstreamBusyError),
        (599, UpstreamFailedError),
    ],
)
def test_statuses_have_their_class(status, expected):
    """Each status ends in one class, and the message names it."""
    error = refused(status)
    assert type(error) is expected
    assert str(status) in error.message


@pytest.mark.parametrize("status", [200, 201, 204, 299, 304])
def test_successes_are_no_errors(status):
    """2xx and 304 are good."""
    assert refused(status) is None


@pytest.mark.parametrize("status", [409, 423, 425])
def test_refusal_with_retry_after_means_busy(status):
    """A conflict or lock that says when it ends is worth another try."""
    error = refused(status, {"Retry-After": "2"})
    assert (type(error), error.retry_after_s) == (UpstreamBusyError, 2)


def test_spent_budget_may_come_as_403():
    """A 403 with nothing left of the rate limit is busy, as at GitHub."""
    error = refused(403, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "60"})
    assert (type(error), error.retry_after_s) == (UpstreamBusyError, 60)


def test_details_come_from_the_problem_document():
    """The `errors` of a problem document become details; nothing else of the body is kept."""
    body = b'{"detail": "secret", "errors": [{"index": 3, "field": "quantity"}, 7]}'
    error = refused(422, PROBLEM, body)
    assert (error.status, error.details) == (422, ({"index": 3, "field": "quantity"},))
    assert str(error) == (
        "https://api.example: POST /orders 'O-1': it answered 422 Unprocessable Entity, naming "
        "1 records or fields; correct the request"
    )


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({}, b'{"errors": [{}]}'),
        (PROBLEM, b""),
        (PROBLEM, b"[]"),
        (PROBLEM, b"null"),
        (PROBLEM, b'{"errors": {"a": 1}}'),
        (PROBLEM, b"\xff"),
    ],
)
def test_anything_else_has_no_details(headers, body):
    """Bodies of another form are passed over."""
    assert problem_details(httpx.Headers(headers), body) == ()


def test_errors_survive_pickling():
    """An error of a worker process arrives whole."""
    error = OutcomeUnknownError("…", **WHERE)
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (OutcomeUnknownError, str(error))
