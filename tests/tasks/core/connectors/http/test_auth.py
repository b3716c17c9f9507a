"""OAuth 2 tokens: how they are asked for, kept, renewed and shared."""

from __future__ import annotations

import threading
from base64 import b64decode

import orjson
import pytest

from blocks.errors import MisconfiguredError
from tasks.core.connectors.http.auth import OAuth2


class TokenEndpoint:
    """Gives numbered tokens and remembers what it was asked."""

    def __init__(self, **answer):
        self.asked = []
        self.answer = answer

    def __call__(self, request):
        self.asked.append(request)
        return orjson.dumps({"access_token": f"token-{len(self.asked)}", **self.answer})


def oauth(fake_time, **options):
    return OAuth2(
        "https://id.example/token",
        client_id="us",
        client_secret="a:b c",
        clock=fake_time.clock,
        **options,
    )


def test_client_credentials_go_into_the_header(fake_time):
    """Name and secret are form-encoded, then sent as Basic credentials."""
    endpoint = TokenEndpoint()
    oauth(fake_time, scope="read write", parameters={"audience": "x"}).token(endpoint)
    (request,) = endpoint.asked
    assert request.form == {
        "grant_type": "client_credentials",
        "scope": "read write",
        "audience": "x",
    }
    kind, _, pair = request.headers["Authorization"].partition(" ")
    assert (kind, b64decode(pair)) == ("Basic", b"us:a%3Ab+c")


def test_client_credentials_may_go_into_the_form(fake_time):
    """Endpoints that want them in the form get no header."""
    endpoint = TokenEndpoint()
    oauth(fake_time, client_auth="form").token(endpoint)
    (request,) = endpoint.asked
    assert (request.form["client_id"], request.form["client_secret"]) == ("us", "a:b c")
    assert "Authorization" not in request.headers


def test_secrets_are_not_shown(fake_time):
    """The representation of a token request holds neither form nor headers."""
    endpoint = TokenEndpoint()
    oauth(fake_time, refresh_token="s3cret", client_auth="form").token(endpoint)
    assert "s3cret" not in repr(endpoint.asked[0])


@pytest.mark.parametrize("expires_in", [3600, "3600"])
def test_token_is_kept_until_shortly_before_it_expires(fake_time, expires_in):
    """A token is used again and again, and renewed 30 seconds early."""
    tokens, endpoint = oauth(fake_time), TokenEndpoint(expires_in=expires_in)
    assert [tokens.token(endpoint) for _ in range(3)] == ["token-1"] * 3
    fake_time.sleep(3569)
    assert tokens.token(endpoint) == "token-1"
    fake_time.sleep(1)
    assert tokens.token(endpoint) == "token-2"


def test_short_lived_token_is_used_for_half_its_life(fake_time):
    """A token that lives shorter than the margin is not fetched for every request."""
    tokens, endpoint = oauth(fake_time), TokenEndpoint(expires_in=10)
    tokens.token(endpoint)
    fake_time.sleep(4.9)
    assert tokens.token(endpoint) == "token-1"
    fake_time.sleep(0.1)
    assert tokens.token(endpoint) == "token-2"


def test_token_without_lifetime_is_kept_until_refused(fake_time):
    """Without expires_in only a refusal renews the token."""
    tokens, endpoint = oauth(fake_time), TokenEndpoint()
    tokens.token(endpoint)
    fake_time.sleep(1e9)
    assert tokens.token(endpoint) == "token-1"
    assert tokens.replace("token-1", endpoint) == "token-2"


def test_one_refusal_renews_once_however_many_ask(fake_time):
    """Threads that were refused with the same token share one new one."""
    tokens, endpoint = oauth(fake_time), TokenEndpoint()
    refused = tokens.token(endpoint)
    got = []
    threads = [
        threading.Thread(target=lambda: got.append(tokens.replace(refused, endpoint)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == ["token-2"] * 8
    assert len(endpoint.asked) == 2


def test_rotated_refresh_token_is_used_and_told(fake_time):
    """A new refresh token replaces the old one and is handed to whoever keeps it."""
    kept = []
    tokens = oauth(fake_time, refresh_token="old", on_refresh_token=kept.append)
    endpoint = TokenEndpoint(refresh_token="new")
    tokens.replace(tokens.token(endpoint), endpoint)
    assert [request.form["refresh_token"] for request in endpoint.asked] == ["old", "new"]
    assert kept == ["new"]


@pytest.mark.parametrize(
    "answer", [b"", b"[]", b"null", b"{}", b'{"access_token": 1, "expires_in": "x"}']
)
def test_answer_without_token_is_ours_to_mend(fake_time, answer):
    """Whatever else answers at the address is no token endpoint."""
    with pytest.raises(MisconfiguredError, match="holds no access_token; check token_url"):
        oauth(fake_time).token(lambda request: answer)
