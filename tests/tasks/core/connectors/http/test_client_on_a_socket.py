"""The same promises against a real server on the loopback."""

from __future__ import annotations

import gzip
import socket
import threading
from base64 import b64decode
from urllib.parse import parse_qs

import httpx
import pytest

from blocks.errors import (
    BadPayloadError,
    MisconfiguredError,
    UnreachableError,
    UpstreamBusyError,
    UpstreamFailedError,
)
from sandbox.systems.scripted_api import ScriptedReply
from tasks.core.connectors.http.auth import OAuth2
from tasks.core.connectors.http.client import ApiClient, ApiLimits
from tasks.core.connectors.http.errors import OutcomeUnknownError
from tasks.core.connectors.http.retrying import RetryPolicy

ONCE = RetryPolicy(max_attempts=1)


def test_failures_that_pass_end_well(scripted_api, client_of, fake_time):
    """After 500, a rate limit and a cut answer, the fourth attempt brings the data."""
    scripted_api.answer(
        ScriptedReply(status=500),
        ScriptedReply(status=429, headers={"Retry-After": "11"}),
        ScriptedReply({"a": 1}, sent_bytes=3),
        ScriptedReply({"a": 1}),
    )
    assert client_of(scripted_api.url).call("GET", "/orders").json() == {"a": 1}
    assert len(scripted_api.requests) == 4
    assert fake_time.waits[1] == 11


def test_retry_after_may_be_a_date(scripted_api, client_of, fake_time):
    """An HTTP date is compared with the server's own Date."""
    headers = {
        "Date": "Sat, 31 Jan 2026 13:00:00 GMT",
        "Retry-After": "Sat, 31 Jan 2026 13:00:25 GMT",
    }
    scripted_api.answer(ScriptedReply(status=503, headers=headers), ScriptedReply())
    client_of(scripted_api.url).call("GET", "/orders")
    assert fake_time.waits == [25]


@pytest.mark.parametrize("how", ["cut in the body", "closed before the answer"])
def test_cut_connection_is_unreachable(scripted_api, client_of, how):
    """A connection that breaks off is a transient failure; nothing of the answer is used."""
    cut = (
        ScriptedReply({"a": 1}, sent_bytes=3)
        if how == "cut in the body"
        else ScriptedReply(closes=True)
    )
    scripted_api.answer(cut)
    with pytest.raises(UnreachableError, match="cut in the middle"):
        client_of(scripted_api.url, retries=ONCE).call("GET", "/orders")


def test_cut_post_is_not_sent_twice(scripted_api, client_of):
    """A POST without key whose answer was cut reaches the server exactly once."""
    scripted_api.answer(ScriptedReply(sent_bytes=1))
    with pytest.raises(OutcomeUnknownError):
        client_of(scripted_api.url).call("POST", "/orders", json={"a": 1})
    assert len(scripted_api.requests) == 1


def test_cut_post_with_key_is_sent_again(scripted_api, client_of):
    """A POST with key is sent again, identical."""
    scripted_api.answer(ScriptedReply(sent_bytes=1), ScriptedReply())
    client_of(scripted_api.url).call("POST", "/orders", json={"a": 1}, idempotency_key="k")
    first, second = scripted_api.requests
    assert (first.body, first.headers) == (second.body, second.headers)
    assert first.headers["idempotency-key"] == "k"


def test_silent_server_is_given_up(scripted_api):
    """A server that takes the request and says nothing runs into the read time-out."""
    scripted_api.answer(ScriptedReply(silent=True))
    with httpx.Client(base_url=scripted_api.url, timeout=httpx.Timeout(5, read=0.05)) as http:
        client = ApiClient(http, system=scripted_api.url, retries=ONCE)
        with pytest.raises(UnreachableError, match="fell silent for longer than read_timeout_s"):
            client.call("GET", "/orders")


def test_refused_connection_is_tried_again(client_of, fake_time):
    """Where nobody listens even a POST without key is tried again, and the error says so."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    client = client_of(f"http://127.0.0.1:{port}")
    with pytest.raises(UnreachableError, match="no connection; is it up"):
        client.call("POST", "/orders", json={})
    assert len(fake_time.waits) == 3


def test_connection_that_does_not_come_is_given_up():
    """A host that answers no connection attempt runs into the connect time-out."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        address = listener.getsockname()
        with socket.create_connection(address):  # fills the queue of the listener
            timeout = httpx.Timeout(5, connect=0.05)
            with httpx.Client(base_url=f"http://127.0.0.1:{address[1]}", timeout=timeout) as http:
                client = ApiClient(http, system="x", retries=ONCE)
                with pytest.raises(UnreachableError, match="no connection within"):
                    client.call("GET", "/orders")


@pytest.mark.parametrize("compressed", [False, True])
def test_size_limit_counts_what_is_kept(scripted_api, client_of, compressed):
    """An answer above the limit is refused, a compressed one by its size when unpacked."""
    body = b"x" * 100_000
    if compressed:
        scripted_api.answer(
            ScriptedReply(gzip.compress(body), headers={"Content-Encoding": "gzip"})
        )
    else:
        scripted_api.answer(ScriptedReply(body))
    client = client_of(scripted_api.url, limits=ApiLimits(max_response_bytes=50_000))
    with pytest.raises(BadPayloadError, match="larger than max_response_bytes"):
        client.call("GET", "/orders")


def test_client_goes_on_after_a_refused_answer(scripted_api, client_of):
    """An answer that was not read to its end does not spoil the next one."""
    scripted_api.answer(ScriptedReply(b"x" * 100_000), ScriptedReply({"a": 1}))
    client = client_of(scripted_api.url, limits=ApiLimits(max_response_bytes=50_000))
    with pytest.raises(BadPayloadError):
        client.call("GET", "/orders")
    assert client.call("GET", "/orders").json() == {"a": 1}


def test_large_answer_arrives_whole(scripted_api, client_of):
    """A compressed megabyte arrives as it was."""
    body = bytes(range(256)) * 4096
    scripted_api.answer(ScriptedReply(gzip.compress(body), headers={"Content-Encoding": "gzip"}))
    assert client_of(scripted_api.url).call("GET", "/orders").content == body


def token_reply(token, **more):
    return ScriptedReply({"access_token": token, "token_type": "Bearer", **more})


def oauth_client(scripted_api, client_of, fake_time, **options):
    oauth = OAuth2(
        f"{scripted_api.url}/token",
        client_id="us",
        client_secret="s3cret",
        clock=fake_time.clock,
        **options,
    )
    return client_of(scripted_api.url, oauth=oauth)


def test_token_is_fetched_once_and_sent(scripted_api, client_of, fake_time):
    """The first call fetches a token, the second one uses it again."""
    scripted_api.answer(token_reply("t1", expires_in=3600), ScriptedReply(), ScriptedReply())
    client = oauth_client(scripted_api, client_of, fake_time)
    client.call("GET", "/orders")
    client.call("GET", "/orders")
    assert [request.path for request in scripted_api.requests] == ["/token", "/orders", "/orders"]
    assert {request.headers["authorization"] for request in scripted_api.requests[1:]} == {
        "Bearer t1"
    }
    assert parse_qs(scripted_api.requests[0].body) == {b"grant_type": [b"client_credentials"]}


def test_other_credentials_stay_away_from_the_token_endpoint(scripted_api, fake_time):
    """With OAuth 2 whatever else the client would add is left out, everywhere."""
    scripted_api.answer(token_reply("t1"), ScriptedReply())
    oauth = OAuth2(f"{scripted_api.url}/token", client_id="us", client_secret="s3cret")
    with httpx.Client(base_url=scripted_api.url, auth=("bob", "pw")) as http:
        ApiClient(http, system="x", oauth=oauth).call("GET", "/orders")
    token, call = scripted_api.requests
    assert b64decode(token.headers["authorization"].removeprefix("Basic ")) == b"us:s3cret"
    assert call.headers["authorization"] == "Bearer t1"


def test_expired_token_is_renewed_before_the_call(scripted_api, client_of, fake_time):
    """No call is made with a token that is about to expire."""
    scripted_api.answer(
        token_reply("t1", expires_in=60), ScriptedReply(), token_reply("t2"), ScriptedReply()
    )
    client = oauth_client(scripted_api, client_of, fake_time)
    client.call("GET", "/orders")
    fake_time.sleep(31)
    client.call("GET", "/orders")
    assert scripted_api.requests[-1].headers["authorization"] == "Bearer t2"


def test_refused_token_is_renewed_once(scripted_api, client_of, fake_time):
    """A 401 fetches one new token and sends the same request again, a POST without key too."""
    scripted_api.answer(
        token_reply("t1"), ScriptedReply(status=401), token_reply("t2"), ScriptedReply({"a": 1})
    )
    client = oauth_client(scripted_api, client_of, fake_time)
    assert client.call("POST", "/orders", json={"b": 2}).json() == {"a": 1}
    assert [request.path for request in scripted_api.requests] == [
        "/token", "/orders", "/token", "/orders",
    ]  # fmt: skip
    assert scripted_api.requests[3].headers["authorization"] == "Bearer t2"
    assert scripted_api.requests[3].body == b'{"b":2}'


def test_second_refusal_ends_the_call(scripted_api, client_of, fake_time):
    """When the new token is refused, too, the credentials are to be mended."""
    scripted_api.answer(
        token_reply("t1"), ScriptedReply(status=401), token_reply("t2"), ScriptedReply(status=401)
    )
    with pytest.raises(MisconfiguredError, match="refuses the credentials"):
        oauth_client(scripted_api, client_of, fake_time).call("GET", "/orders")
    assert len(scripted_api.requests) == 4


def test_refused_client_is_ours_to_mend(scripted_api, client_of, fake_time):
    """The token endpoint's error code is told, its description and our secret are not."""
    scripted_api.answer(
        ScriptedReply({"error": "invalid_client", "error_description": "s3cret"}, status=401)
    )
    with pytest.raises(MisconfiguredError, match=r"answered 401 \(invalid_client\)") as caught:
        oauth_client(scripted_api, client_of, fake_time).call("GET", "/orders")
    assert "s3cret" not in str(caught.value)


def test_busy_token_endpoint_is_tried_again(scripted_api, client_of, fake_time):
    """A token endpoint that is busy delays even a POST without key, but does not end it."""
    scripted_api.answer(ScriptedReply(status=503), token_reply("t1"), ScriptedReply())
    oauth_client(scripted_api, client_of, fake_time).call("POST", "/orders", json={})
    assert [request.path for request in scripted_api.requests] == ["/token", "/token", "/orders"]


def test_broken_token_endpoint_is_told_apart(scripted_api, client_of, fake_time):
    """A failure to get a token names that as the operation."""
    scripted_api.answer(*[ScriptedReply(status=500)] * 4)
    with pytest.raises(UpstreamFailedError, match="fetch token"):
        oauth_client(scripted_api, client_of, fake_time).call("GET", "/orders")


def test_threads_share_one_new_token(scripted_api, client_of, fake_time):
    """Calls of several threads that are refused at once cause one renewal."""
    refused = threading.Barrier(3)

    def answer(request):
        if request.path == "/token":
            return token_reply(f"t{sum(r.path == '/token' for r in scripted_api.requests)}")
        if request.headers["authorization"] == "Bearer t1":
            refused.wait(5)
            return ScriptedReply(status=401)
        return ScriptedReply()

    scripted_api.answer(*[answer] * 8)
    client = oauth_client(scripted_api, client_of, fake_time)
    threads = [threading.Thread(target=client.call, args=("GET", "/orders")) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [request.path for request in scripted_api.requests].count("/token") == 2
    assert len(scripted_api.requests) == 8


def test_own_app_may_be_told_to_misbehave(own_app, fake_time):
    """Against own app a batch survives an error, a cut after it was stored, and a rate limit."""
    client = ApiClient(own_app.http, system="own app", sleep=fake_time.sleep)
    contact = {"contact_id": "C-1", "name": "Ann", "email": "ann@example.com"}
    for number, misbehaviour in enumerate(
        [
            {"mode": "error", "status": 503},
            {"mode": "drop_connection", "applied": True},
            {"mode": "rate_limit", "retry_after_s": 9},
        ]
    ):
        own_app.behave(remaining=1, **misbehaviour)
        answer = client.call(
            "POST",
            "/api/v1/contacts/batch",
            json={"records": [{**contact, "contact_id": f"C-{number}"}]},
            idempotency_key=f"batch-{number}",
        )
        assert answer.json()["created"] == 1
    assert len(own_app.records("contacts")) == 3
    assert fake_time.waits[-1] == 9


def test_key_under_way_is_waited_for(own_app, fake_time):
    """A batch that is still under way when it is sent again is asked for later, not failed."""
    own_app.behave("slow", delay_s=0.2, remaining=1)
    batch = {
        "method": "POST",
        "path": "/api/v1/contacts/batch",
        "json": {"records": []},
        "idempotency_key": "k",
    }
    patient = ApiClient(own_app.http, system="own app", retries=ONCE)
    thread = threading.Thread(target=patient.call, kwargs=batch)
    thread.start()
    while own_app.http.get("/sandbox/behaviour").json()["remaining"]:
        pass
    with pytest.raises(UpstreamBusyError) as caught:
        patient.call(**batch)
    thread.join()
    assert caught.value.retry_after_s == 1
