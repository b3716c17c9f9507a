"""Samples are sent as their senders would: the gateway's own verifier takes them."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from blocks.errors import MisconfiguredError, SignatureInvalidError
from deployments.send_sample import main, read_sample, samples, send_sample, signed_headers
from tasks.plain.integrations.declarations import EndpointDeclaration
from tasks.plain.signatures import verify

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECRETS = {
    "github": "It's a Secret to Everybody",
    "standard-webhooks": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
}


def endpoint(scheme):
    return EndpointDeclaration(path="/hook", scheme=scheme)


@pytest.mark.parametrize("scheme", SECRETS)
def test_signature(scheme):
    """A signed sample is authentic, and one byte more makes it a forgery."""
    sample = read_sample("push")
    secret = SECRETS[scheme]
    request = {
        "secrets": [secret],
        "method": "POST",
        "url": "https://hooks.example/hook",
        "headers": signed_headers(endpoint(scheme), sample, secret, now=NOW),
        "now": NOW,
    }
    assert verify(scheme, body=sample.body, **request)
    with pytest.raises(SignatureInvalidError):
        verify(scheme, body=sample.body + b" ", **request)


def test_api_key():
    """A sample for an endpoint with a key shows it in the header that is declared."""
    sample = read_sample("quote")
    declared = EndpointDeclaration(path="/q", scheme="api-key", options={"header": "X-Shop-Key"})
    assert signed_headers(declared, sample, "key", now=NOW)["X-Shop-Key"] == "key"
    assert signed_headers(endpoint("api-key"), sample, "key", now=NOW)["X-API-Key"] == "key"


def test_each_sending_is_a_new_event():
    """Hashes and instants are fresh, and the same where the sample has the same."""
    first, second = json.loads(read_sample("push").body), json.loads(read_sample("push").body)
    assert first["after"] != second["after"]
    assert first["after"] == first["head_commit"]["id"] == first["commits"][-1]["id"]
    assert first["head_commit"]["timestamp"] > "2026-06"
    as_it_stands = [read_sample("push", as_it_stands=True).body for _ in range(2)]
    assert as_it_stands[0] == as_it_stands[1]


def test_every_sample_is_json():
    """Each sample file can be pasted into the run form."""
    assert {"push", "inventory_update"} <= set(samples())
    for path in samples().values():
        assert isinstance(json.loads(path.read_text()), dict)


def test_unknown_event():
    """A misspelt event is told, with the right ones."""
    with pytest.raises(MisconfiguredError, match=r"no sample 'pusch'; there are .*push"):
        read_sample("pusch")


def test_no_secret():
    """Without the secret nothing is sent, and the variable is named."""
    with pytest.raises(MisconfiguredError, match="set GITHUB_WEBHOOK_SECRET or"):
        send_sample("http://127.0.0.1:9", read_sample("push"), environment={})


def test_gateway_that_is_not_there(monkeypatch, capsys):
    """When nobody listens the command says so and fails."""
    monkeypatch.setenv("GITHUB_WEBHOOK_SECRET", "secret")
    assert main(["push", "--gateway", "http://127.0.0.1:9"]) == 1
    assert capsys.readouterr().err == "http://127.0.0.1:9 does not answer (ConnectError)\n"
