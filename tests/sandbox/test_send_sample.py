"""Samples are sent as their senders would: the gateway's own verifier takes them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from cryptography.fernet import Fernet

from blocks.errors import MisconfiguredError, SignatureInvalidError
from deployments.services.gateway.endpoints import Endpoint, make_endpoints
from sandbox.demo.places import Places
from sandbox.send_sample import (
    Sample,
    address_and_headers,
    endpoint_of,
    main,
    read_sample,
    samples,
    send_sample,
    signed_headers,
)
from tasks.core.intake.webhooks.request import WebhookRequest
from tasks.core.intake.webhooks.verifier import verify
from tasks.core.registry.declarations import (
    EndpointDeclaration,
    declaration_files,
    read_declarations,
)
from tasks.core.registry.secrets.store import StoredSecrets

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


def test_every_sample_reaches_the_endpoint_that_takes_it():
    """With the demo's settings and what activation has stored, each is one authentic event."""
    environment = Places(Path("/demo"), defaultdict(int)).settings()
    endpoints = make_endpoints(
        read_declarations(declaration_files()), environment, stored=stored_secrets
    )
    by_path = {each.path: each for each in endpoints if isinstance(each, Endpoint)}
    taken = {}
    for event in samples():
        sample = read_sample(event)
        url, headers = address_and_headers(
            "http://gateway", sample, environment=environment, stored=stored_secrets
        )
        endpoint = by_path[url.removeprefix("http://gateway")]
        lowered = {name.lower(): value for name, value in headers.items()}
        request = WebhookRequest("POST", url, lowered, sample.body, datetime.now(UTC))
        [received] = endpoint.verifier.verify(request).read_events()
        assert received.ordering_key or endpoint.name in ("github", "quotes")
        taken[event] = endpoint.name
    assert taken["push"] == "github"
    assert taken["crm-contact-updated"] == "crm-contacts"
    assert taken["own-app-contact-updated"] == "own-app-contacts"


def stored_secrets(names: Sequence[str]) -> list[str]:
    return [f"whsec_{base64.b64encode(name.encode() * 3).decode()}" for name in names]


def test_a_sample_that_several_endpoints_could_take():
    """Where it goes is not guessed."""
    with pytest.raises(MisconfiguredError, match="put the sample into samples/<endpoint>/"):
        endpoint_of("crm_contacts")
    assert endpoint_of("crm_contacts", "own-app-contacts").path == "/webhooks/own-app/contacts"


def test_a_path_that_holds_a_variable(monkeypatch, tmp_path):
    """Its value is filled in; without one it is named."""
    declared = tmp_path / "integration.yaml"
    declared.write_text(
        "integration: shop\nendpoints: {shop: {path: '/${SHOP_TOKEN}', scheme: none}}\n"
    )
    monkeypatch.setenv("INTEGRATIONS_ENDPOINTS", str(declared))
    sample = Sample("shop", "sale", b"{}")
    address, _ = address_and_headers("http://h/", sample, environment={"SHOP_TOKEN": "t0k"})
    assert address == "http://h/t0k"
    with pytest.raises(MisconfiguredError, match="set SHOP_TOKEN"):
        address_and_headers("http://h/", sample, environment={})


def test_unknown_event():
    """A misspelt event is told, with the right ones."""
    with pytest.raises(MisconfiguredError, match=r"no sample 'pusch'; there are .*push"):
        read_sample("pusch")


def test_no_secret():
    """Without the secret nothing is sent, and the variable is named."""
    with pytest.raises(MisconfiguredError, match=r"set GITHUB_WEBHOOK_SECRET or .* or activate"):
        send_sample("http://127.0.0.1:9", read_sample("push"), environment={})
    event = read_sample("crm-contact-updated")
    with pytest.raises(MisconfiguredError, match="set CRM_CONTACTS_SECRET or activate"):
        send_sample("http://127.0.0.1:9", event, environment={})


def test_the_secret_that_activation_has_stored(state_database, state_database_url, monkeypatch):
    """What is in the state database signs, where the environment has no secret."""
    received = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.append((body, self.headers["X-Hub-Signature-256"]))
            self.send_response(202)
            self.end_headers()

        def log_message(self, *_):
            """Say nothing."""

    key = Fernet.generate_key().decode()
    StoredSecrets(state_database, [key]).put("github-events", "agreed")
    monkeypatch.setenv("INTEGRATIONS_DATABASE_URL", state_database_url)
    monkeypatch.setenv("INTEGRATIONS_SECRETS_KEY", key)
    monkeypatch.delenv("GITHUB_WEBHOOK_SECRET", raising=False)
    with HTTPServer(("127.0.0.1", 0), Receiver) as server:
        thread = Thread(target=server.handle_request)
        thread.start()
        assert main(["push", "--gateway", f"http://127.0.0.1:{server.server_port}"]) == 0
        thread.join()
    [(body, signature)] = received
    assert signature == f"sha256={hmac.new(b'agreed', body, hashlib.sha256).hexdigest()}"


def test_gateway_that_is_not_there(monkeypatch, capsys):
    """When nobody listens the command says so and fails."""
    monkeypatch.setenv("GITHUB_WEBHOOK_SECRET", "secret")
    assert main(["push", "--gateway", "http://127.0.0.1:9"]) == 1
    assert capsys.readouterr().err == "http://127.0.0.1:9 does not answer (ConnectError)\n"
