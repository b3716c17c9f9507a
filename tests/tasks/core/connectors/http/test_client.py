"""What a client does with answers and failures, without a network."""

from __future__ import annotations

import logging
from decimal import Decimal

import httpx
import orjson
import pytest

from blocks.errors import (
    BadPayloadError,
    MisconfiguredError,
    PermanentError,
    TransientError,
    UnreachableError,
    UpstreamBusyError,
    UpstreamFailedError,
    UpstreamRejectedError,
)
from tasks.core.connectors.http.client import ApiLimits, path_segment
from tasks.core.connectors.http.errors import OutcomeUnknownError
from tasks.core.connectors.http.retrying import RetryPolicy


class Api:
    """Answers with each step in turn: a response, or an exception to raise."""

    def __init__(self, *steps):
        self.steps = list(steps)
        self.requests = []

    def __call__(self, request):
        self.requests.append(request)
        step = self.steps.pop(0) if self.steps else httpx.Response(200, json={})
        if isinstance(step, Exception):
            raise step
        return step


def refuses(status, **headers):
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, headers=names)


def test_request_is_made_as_told(client_of):
    """Base URL, query, body and headers all arrive; None is left out of the query."""
    api = Api()
    client_of(api).call(
        "POST",
        "/orders",
        params={"page": 2, "since": None},
        json={"total": Decimal("1.50")},
        headers={"X-Trace": "7"},
        idempotency_key="k",
    )
    (request,) = api.requests
    assert (request.method, str(request.url)) == ("POST", "https://api.example/v1/orders?page=2")
    assert request.content == b'{"total":"1.50"}'
    assert request.headers["Content-Type"] == "application/json"
    assert (request.headers["X-Trace"], request.headers["Idempotency-Key"]) == ("7", "k")


def test_query_of_the_path_is_kept(client_of):
    """Parameters are added to the query that the path has already."""
    api = Api()
    client_of(api).call("GET", "/orders?a=1", params={"b": 2})
    assert api.requests[0].url.query == b"a=1&b=2"


def test_given_content_keeps_its_type(client_of):
    """A body of another kind is sent as it is."""
    api = Api()
    client_of(api).call("PUT", "/x", content=b"<a/>", headers={"Content-Type": "text/xml"})
    assert (api.requests[0].content, api.requests[0].headers["Content-Type"]) == (
        b"<a/>",
        "text/xml",
    )


def test_answer_is_read_as_json(client_of):
    """The answer carries status, headers and body; an empty body is None."""
    api = Api(httpx.Response(201, json={"a": 1}, headers={"ETag": "x"}), httpx.Response(204))
    client = client_of(api)
    answer = client.call("GET", "/orders")
    assert (answer.status, answer.headers["etag"], answer.json()) == (201, "x", {"a": 1})
    assert client.call("GET", "/orders").json() is None


def test_answer_that_is_no_json_is_refused(client_of):
    """A log-in page instead of JSON is named by its type, without its text."""
    page = httpx.Response(200, html="<html>secret</html>")
    with pytest.raises(BadPayloadError, match=r"text/html, 19 bytes\) is not JSON") as caught:
        client_of(Api(page)).call("GET", "/orders").json()
    assert "secret" not in str(caught.value)


def test_transient_failures_are_tried_again(client_of, fake_time, caplog):
    """Failures that may pass are tried again, and each wait is logged."""
    caplog.set_level(logging.WARNING)
    api = Api(refuses(500), httpx.ReadTimeout("…"), refuses(429, Retry_After="7"))
    assert client_of(api).call("GET", "/orders").status == 200
    assert len(api.requests) == 4
    assert fake_time.waits[2] == 7
    assert (
        "answered 429 Too Many Requests and asks to wait 7 s; trying again in 7.0 s"
        in (caplog.messages[-1])
    )


def test_last_failure_is_raised(client_of):
    """When all attempts fail the last error is raised."""
    api = Api(refuses(500), refuses(502), refuses(503), refuses(500))
    with pytest.raises(UpstreamFailedError, match="500"):
        client_of(api).call("GET", "/orders")
    assert len(api.requests) == 4


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422])
def test_refusals_are_not_tried_again(client_of, status):
    """The same request would be refused again."""
    api = Api(refuses(status))
    with pytest.raises(PermanentError):
        client_of(api).call("PUT", "/orders/1", json={})
    assert len(api.requests) == 1


def test_longer_wait_than_allowed_is_handed_on(client_of, fake_time):
    """A wait above the cap is not slept; the error tells it."""
    api = Api(refuses(503, Retry_After="3600"))
    with pytest.raises(UpstreamBusyError) as caught:
        client_of(api).call("GET", "/orders")
    assert (caught.value.retry_after_s, fake_time.waits) == (3600, [])


@pytest.mark.parametrize(
    "failure",
    [httpx.ReadTimeout("…"), httpx.RemoteProtocolError("…"), httpx.WriteError("…"), 500, 503, 408],
)
def test_doubtful_post_is_not_repeated(client_of, failure):
    """A POST without key that may have been carried out fails for good and says what to do."""
    api = Api(failure if isinstance(failure, Exception) else refuses(failure))
    with pytest.raises(OutcomeUnknownError, match="may have been carried out") as caught:
        client_of(api).call("POST", "/orders", json={})
    assert len(api.requests) == 1
    assert isinstance(caught.value.__cause__, TransientError)


@pytest.mark.parametrize("failure", [httpx.ConnectError("…"), httpx.ConnectTimeout("…"), 429])
def test_post_that_had_no_effect_is_repeated(client_of, failure):
    """A POST without key is tried again if nothing was sent or it was refused for now."""
    api = Api(failure if isinstance(failure, Exception) else refuses(failure))
    assert client_of(api).call("POST", "/orders", json={}).status == 200
    assert len(api.requests) == 2


def test_post_with_key_is_repeated_with_the_same_key(client_of):
    """With an idempotency key even a doubtful POST is tried again, with key and body unchanged."""
    api = Api(httpx.ReadTimeout("…"), refuses(500))
    client_of(api).call("POST", "/orders", json={"a": 1}, idempotency_key="k")
    seen = {(request.headers["Idempotency-Key"], request.content) for request in api.requests}
    assert (len(api.requests), seen) == (3, {("k", b'{"a":1}')})


def test_caller_may_know_better(client_of):
    """A search by POST is repeatable when the caller says so."""
    api = Api(refuses(500))
    client_of(api).call("POST", "/search", json={}, repeatable=True)
    assert len(api.requests) == 2


@pytest.mark.parametrize(
    "address",
    [
        "https://evil.example/v1/orders",
        "http://api.example/v1/orders",
        "https://api.example:8443/v1/orders",
        "https://api.example@evil.example/",
    ],
)
def test_other_origin_is_refused(client_of, address):
    """Credentials never go to another host, port or scheme."""
    api = Api()
    with pytest.raises(BadPayloadError, match="another origin"):
        client_of(api).call("GET", address)
    assert api.requests == []


def test_address_of_the_same_origin_is_followed(client_of):
    """A whole URL of the same origin is as good as a path."""
    api = Api()
    client_of(api).call("GET", "https://api.example/v1/orders?cursor=x")
    assert str(api.requests[0].url) == "https://api.example/v1/orders?cursor=x"


@pytest.mark.parametrize("path", ["http://[::", "/a\x00b"])
def test_address_that_is_none_is_ours_to_mend(client_of, path):
    """What is no URL is refused before anything is sent."""
    with pytest.raises(MisconfiguredError, match="not a URL"):
        client_of(Api()).call("GET", path)


def test_redirects_are_not_followed(client_of):
    """A redirect is answered with the advice to set the right address."""
    api = Api(refuses(302, Location="https://evil.example/"))
    with pytest.raises(MisconfiguredError, match="base_url"):
        client_of(api).call("GET", "/orders")
    assert len(api.requests) == 1


def test_errors_name_the_call_without_its_query(client_of):
    """An error says system, method, path and record, and no value of query, body or address."""
    api = Api(httpx.Response(422, json={"detail": "secret"}))
    with pytest.raises(UpstreamRejectedError) as caught:
        client_of(api).call(
            "PUT",
            "https://user:secret@api.example/v1/orders?token=secret",
            json={"a": "secret"},
            record="O-1",
        )
    assert str(caught.value).startswith(
        "https://api.example: PUT https://api.example/v1/orders 'O-1': it answered 422"
    )
    assert "secret" not in str(caught.value)


def test_spent_budget_is_waited_for_before_the_next_call(client_of, fake_time):
    """After an answer that leaves nothing, the next request waits for the reset."""
    spent = httpx.Response(200, headers={"RateLimit": '"default";r=0;t=20'})
    client = client_of(Api(spent))
    client.call("GET", "/orders")
    assert fake_time.waits == []
    client.call("GET", "/orders")
    assert fake_time.waits == [20]


def test_long_spent_budget_ends_the_call(client_of, fake_time):
    """A budget that is spent for longer than allowed is handed on like Retry-After."""
    spent = httpx.Response(200, headers={"RateLimit": '"default";r=0;t=3600'})
    api = Api(spent)
    client = client_of(api)
    client.call("GET", "/orders")
    with pytest.raises(UpstreamBusyError) as caught:
        client.call("GET", "/orders")
    assert (caught.value.retry_after_s, len(api.requests)) == (3600, 1)


def test_shared_budget_is_asked_before_each_request(client_of):
    """The hook for a budget shared by all runs is called for retries, too."""
    asked = []
    api = Api(refuses(500))
    client_of(api, before_request=lambda: asked.append(1)).call("GET", "/orders")
    assert len(asked) == len(api.requests) == 2


class Stream(httpx.SyncByteStream):
    """A body that comes in pieces and takes its time."""

    def __init__(self, piece, count, fake_time=None):
        self.piece, self.left, self.fake_time = piece, count, fake_time

    def __iter__(self):
        while self.left:
            self.left -= 1
            if self.fake_time:
                self.fake_time.sleep(1)
            yield self.piece


def test_reading_stops_at_the_size_limit(client_of):
    """Of an endless answer no more is read than the limit and one piece."""
    stream = Stream(b"x" * 100, 1_000_000)
    client = client_of(
        Api(httpx.Response(200, stream=stream)), limits=ApiLimits(max_response_bytes=1000)
    )
    with pytest.raises(BadPayloadError, match=r"larger than max_response_bytes \(1000\)"):
        client.call("GET", "/orders")
    assert stream.left == 1_000_000 - 11


def test_answer_as_large_as_the_limit_is_taken(client_of):
    """The limit itself is allowed."""
    response = httpx.Response(200, content=b"x" * 1000)
    client = client_of(Api(response), limits=ApiLimits(max_response_bytes=1000))
    assert len(client.call("GET", "/orders").content) == 1000


def test_too_large_refusal_is_still_a_refusal(client_of):
    """The status counts even if the body that explains it is too large."""
    response = httpx.Response(422, stream=Stream(b"x" * 100, 1_000_000))
    client = client_of(Api(response), limits=ApiLimits(max_response_bytes=1000))
    with pytest.raises(UpstreamRejectedError):
        client.call("GET", "/orders")


def test_dripping_answer_is_given_up(client_of, fake_time):
    """An answer that never falls silent but never ends either has a deadline."""
    stream = Stream(b"x", 1_000_000, fake_time)
    client = client_of(
        Api(httpx.Response(200, stream=stream)),
        limits=ApiLimits(total_timeout_s=60),
        retries=RetryPolicy(max_attempts=1),
    )
    with pytest.raises(UnreachableError, match="longer than 60 s"):
        client.call("GET", "/orders")
    assert stream.left == 1_000_000 - 61


def test_damaged_compression_is_refused(client_of):
    """A body that is not the gzip it claims to be is a bad payload."""
    response = httpx.Response(
        200, headers={"Content-Encoding": "gzip"}, stream=Stream(b"nonsense", 1)
    )
    with pytest.raises(BadPayloadError, match="compression is damaged"):
        client_of(Api(response)).call("GET", "/orders")


@pytest.mark.parametrize(
    ("key", "segment"), [("W-1", "W-1"), ("a/b", "a%2Fb"), ("a?b#c", "a%3Fb%23c"), ("ä", "%C3%A4")]
)
def test_keys_become_one_segment_of_a_path(client_of, key, segment):
    """A business key cannot lead to another address, and arrives as it was."""
    api = Api()
    client_of(api).call("GET", f"/orders/{path_segment(key)}")
    assert path_segment(key) == segment
    assert api.requests[0].url.raw_path == f"/v1/orders/{segment}".encode()


@pytest.mark.parametrize("key", ["", ".", ".."])
def test_keys_that_would_climb_are_refused(key):
    """Dots alone would change the path."""
    with pytest.raises(PermanentError):
        path_segment(key)


def test_answers_are_not_shown(client_of):
    """The representation of an answer holds neither body nor address."""
    api = Api(httpx.Response(200, content=orjson.dumps("secret")))
    assert "secret" not in repr(client_of(api).call("GET", "/orders?key=secret"))
