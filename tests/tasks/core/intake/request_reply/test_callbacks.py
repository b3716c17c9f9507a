"""Results are sent signed, to the address that was looked at, and never further."""

from __future__ import annotations

import base64
import json
import ssl
from datetime import UTC, datetime

import pytest
import trustme
from standardwebhooks.webhooks import Webhook

from blocks.errors import (
    BadPayloadError,
    MisconfiguredError,
    UnreachableError,
    UpstreamBusyError,
    UpstreamFailedError,
    UpstreamRejectedError,
)
from sandbox.systems import scripted_api as scripted
from sandbox.systems.scripted_api import ScriptedReply
from tasks.core.intake.inbox.reply import Reply
from tasks.core.intake.request_reply.callbacks import callback_body, send_callback
from tasks.core.intake.request_reply.requests import CallbackTarget, RequestView

SECRETS = ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"]
LOOPBACK = ("127.0.0.0/8",)


def target(url, networks=LOOPBACK):
    return CallbackTarget(url, "callback-signature/x", "/requests/x", networks)


def send(url, *, body=b"{}", **changes):
    return send_callback(target(url), body, message_id="msg-1", secrets=SECRETS, **changes)


def view(reply):
    now = datetime.now(UTC)
    return RequestView("r1", "d", "done", now, now, now, "run-1", None, reply)


def test_each_secret_signs(scripted_api):
    """The reference implementation accepts the message with the new secret and with the old."""
    scripted_api.answer(ScriptedReply(status=204))
    assert send(f"{scripted_api.url}/hook?a=1", body=b'{"a":1}') == 204
    [request] = scripted_api.requests
    assert (request.path, request.body) == ("/hook?a=1", b'{"a":1}')
    for secret in SECRETS:
        Webhook(secret).verify(request.body, dict(request.headers))


def test_the_name_stays_in_the_request(scripted_api):
    """The connection goes to the address that was looked at, the Host header has the name."""
    scripted_api.answer(ScriptedReply())
    port = scripted_api.url.rpartition(":")[2]
    send(f"http://partner.example:{port}/x", resolve=lambda _host, _port: ["127.0.0.1"])
    assert scripted_api.requests[0].headers["host"] == f"partner.example:{port}"


def test_the_certificate_must_be_for_the_name(tmp_path):
    """Over TLS a certificate for the name is accepted, and one for another name is not."""
    authority = trustme.CA()
    pem = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("partner.example").configure_cert(context)
    with scripted.start(context) as api:
        port = api.url.rpartition(":")[2]
        api.answer(ScriptedReply(status=204))
        trusting = ssl.create_default_context(cafile=str(pem))

        def to_loopback(host):
            return send(
                f"https://{host}:{port}/x",
                resolve=lambda _host, _port: ["127.0.0.1"],
                tls=trusting,
            )

        assert to_loopback("partner.example") == 204
        with pytest.raises(MisconfiguredError, match="certificate"):
            to_loopback("other.example")


def test_redirects_are_not_followed(scripted_api):
    """An address cannot lead elsewhere after it was looked at."""
    scripted_api.answer(
        ScriptedReply(status=307, headers={"Location": f"{scripted_api.url}/inside"})
    )
    with pytest.raises(MisconfiguredError, match="307"):
        send(scripted_api.url)
    assert len(scripted_api.requests) == 1


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (ScriptedReply(status=410), MisconfiguredError),
        (ScriptedReply(status=404), UpstreamRejectedError),
        (ScriptedReply(status=429, headers={"Retry-After": "7"}), UpstreamBusyError),
        (ScriptedReply(status=500), UpstreamFailedError),
        (ScriptedReply(closes=True), UnreachableError),
    ],
)
def test_refusals(scripted_api, reply, error):
    """What may pass is tried again; what will not is for people to look at."""
    scripted_api.answer(reply)
    with pytest.raises(error):
        send(scripted_api.url)


def test_a_private_address_is_refused_when_it_is_called(scripted_api):
    """Even if the gateway was never asked: nothing is connected to."""
    with pytest.raises(BadPayloadError):
        send_callback(target(scripted_api.url, networks=()), b"{}", message_id="m", secrets=SECRETS)
    assert scripted_api.requests == []


def test_bodies():
    """JSON stands in the message as JSON, a file as base64, each with its status and headers."""
    data = json.loads(callback_body(view(Reply.json({"total": "1.10"})), "/requests/r1"))["data"]
    assert (data["status"], data["body"], data["run"]) == (200, {"total": "1.10"}, "run-1")
    file = Reply.file(b"\x00%PDF", name="a.pdf", content_type="application/pdf")
    data = json.loads(callback_body(view(file), "/requests/r1"))["data"]
    assert base64.b64decode(data["body_base64"]) == b"\x00%PDF"
    assert data["headers"] == dict(file.headers)


@pytest.mark.parametrize(
    ("content_type", "body", "is_shown"),
    [
        ("application/json", b'{"a": 1}', True),
        ("Application/JSON ; charset=utf-8", b"[1]", True),
        ("application/problem+json", b"{}", True),
        ("application/jsonl", b'{"a": 1}\n{"a": 2}\n', False),
        ("application/x-ndjson", b"1\n2\n", False),
        ("text/plain; note=json", b"1 2", False),
        ("application/json", b"not json", False),
        ("application/json; charset=latin-1", b'"\xe4"', False),
    ],
)
def test_whatever_is_answered_the_message_is_json(content_type, body, is_shown):
    """Only what is JSON stands in the message as such; lines of it, or a false label, do not."""
    sent = callback_body(view(Reply(200, body, content_type)), "/requests/r1")
    data = json.loads(sent)["data"]
    if is_shown:
        assert data["body"] == json.loads(body)
    else:
        assert base64.b64decode(data["body_base64"]) == body
