"""Only what Amazon signed for an allowed topic is believed, with keys from Amazon's own hosts."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from blocks.errors import BadPayloadError, SignatureInvalidError, UnreachableError
from tasks.core.intake.webhooks.request import Proof, WebhookRequest
from tasks.core.intake.webhooks.sns import events
from tasks.core.intake.webhooks.verifier import Verifier

# Made with a key of their own and judged by npm's sns-validator 0.3.5, which accepted each and
# refused them with another Message. A cancellation is signed as that validator expects.
VECTORS = json.loads((Path(__file__).parent / "vectors/sns_messages.json").read_text())
CERTIFICATE = VECTORS["certificate"].encode()
TOPIC = "arn:aws:sns:eu-central-1:123456789012:orders"
MESSAGES = [
    pytest.param(message, id=f"{name}, version {message['SignatureVersion']}")
    for name, message in VECTORS["messages"]
]
KINDS = dict(VECTORS["messages"])


class Host:
    """Stands in for Amazon's host and counts what is fetched there."""

    def __init__(self, content: bytes = CERTIFICATE) -> None:
        self.content = content
        self.fetched: list[str] = []

    def __call__(self, url: str) -> bytes:
        self.fetched.append(url)
        return self.content


def verifier(host: Host | None = None, topics=(TOPIC,)) -> Verifier:
    options = {"topic_arns": topics, "fetch_certificate": host or Host()}
    return Verifier("sns", secrets=[], options=options)


def request(message: object) -> WebhookRequest:
    body = message if isinstance(message, bytes) else json.dumps(message).encode()
    return WebhookRequest("POST", "https://hooks.example/sns", {}, body, datetime.now(UTC))


@pytest.mark.parametrize("message", MESSAGES)
def test_accepts_what_the_independent_validator_accepts(message):
    """Both versions, all types, with and without subject."""
    verifier().verify(request(message))


@pytest.mark.parametrize("message", MESSAGES)
def test_refuses_a_changed_message(message):
    """A change of any signed field is refused."""
    for field in ("Message", "MessageId", "Timestamp"):
        with pytest.raises(SignatureInvalidError):
            verifier().verify(request({**message, field: "changed"}))


@pytest.mark.parametrize("field", ["Message", "MessageId", "Timestamp", "TopicArn", "Type"])
@pytest.mark.parametrize("value", [None, 7, [], {}, True])
def test_refuses_fields_that_are_missing_or_no_text(field, value):
    """A field that is null, a number or a structure is a refusal and no crash."""
    with pytest.raises(SignatureInvalidError):
        verifier().verify(request({**KINDS["Notification, JSON message"], field: value}))


@pytest.mark.parametrize(
    "url",
    [
        "http://sns.eu-central-1.amazonaws.com/a.pem",
        "https://sns.eu-central-1.amazonaws.com.evil.example/a.pem",
        "https://evil.example/sns.eu-central-1.amazonaws.com/a.pem",
        "https://user@sns.eu-central-1.amazonaws.com/a.pem",
        "https://sns.eu-central-1.amazonaws.com:8443/a.pem",
        "https://sns.eu-central-1.amazonaws.com/a.txt",
        "https://sns.eu-central-1.amazonaws.com/a.pem?x=.pem",
        "https://sns.eu-central-1.amazonaws.com/a.pem\n",
        "https://s3.eu-central-1.amazonaws.com/bucket/a.pem",
        "https://sns.x.amazonaws.com/a.pem",
        "",
    ],
)
def test_fetches_certificates_from_amazon_only(url):
    """No request is made to any other host, port, scheme or kind of file."""
    host = Host()
    with pytest.raises(SignatureInvalidError):
        verifier(host).verify(
            request({**KINDS["Notification, JSON message"], "SigningCertURL": url})
        )
    assert host.fetched == []


def test_fetches_nothing_for_a_strangers_topic():
    """A topic that is not allowed is refused before anything is fetched."""
    host = Host()
    with pytest.raises(SignatureInvalidError, match="topic"):
        verifier(host, topics=[TOPIC + "2"]).verify(request(KINDS["Notification, JSON message"]))
    assert host.fetched == []


def test_fetches_a_certificate_once():
    """The certificate is kept by its URL."""
    host = Host()
    verify = verifier(host).verify
    for message in KINDS.values():
        verify(request(message))
    assert len(host.fetched) == 1


@pytest.mark.parametrize("content", [b"", b"no certificate", CERTIFICATE[:200]])
def test_refuses_a_file_that_is_no_certificate(content):
    """Whatever stands at the URL, it is a refusal and no crash."""
    with pytest.raises(SignatureInvalidError, match="certificate"):
        verifier(Host(content)).verify(request(KINDS["Notification, JSON message"]))


def test_an_unreachable_certificate_is_no_forgery():
    """When Amazon's host does not answer, the delivery is worth sending again."""

    def unreachable(url: str) -> bytes:
        raise UnreachableError("down", system="webhook sns", operation="fetch certificate")

    options = {"topic_arns": [TOPIC], "fetch_certificate": unreachable}
    with pytest.raises(UnreachableError):
        Verifier("sns", secrets=[], options=options).verify(
            request(KINDS["Notification, JSON message"])
        )


def test_raw_delivery_is_refused():
    """Raw message delivery has no envelope and no signature; the error says to switch it off."""
    with pytest.raises(SignatureInvalidError, match="raw message delivery"):
        verifier().verify(request({"order": 42}))


def test_a_notification_is_read_with_its_message_parsed():
    """Flows receive the message itself, with what SNS says about it."""
    message = KINDS["Notification, JSON message"]
    message = {**message, "MessageAttributes": {"kind": {"Type": "String", "Value": "new"}, "b": 1}}
    (event,) = verifier().verify(request(message)).read_events()
    assert event.dedup_key == message["MessageId"]
    assert json.loads(event.payload) == {
        "topic_arn": TOPIC,
        "message_id": message["MessageId"],
        "published_at": message["Timestamp"],
        "subject": None,
        "message": {"order": 42},
        "attributes": {"kind": "new"},
    }


def test_a_text_message_stays_text():
    """A message that is no JSON object or array is passed on as it is."""
    (event,) = verifier().verify(request(KINDS["Notification with subject"])).read_events()
    assert json.loads(event.payload)["message"] == "Ａ Ｍｅｓｓａｇｅ Ｆｏｒ ｙｏｕ！"


def test_a_message_nested_too_deeply_is_malformed():
    """It is the sender's fault, and said."""
    message = {**KINDS["Notification, JSON message"], "Message": "[" * 900 + "]" * 900}
    with pytest.raises(BadPayloadError, match="nested too deeply"):
        events(request(message), Proof(document=message))


def test_a_subscription_is_confirmed_at_amazon():
    """The handshake names the URL to call; it carries no event."""
    message = KINDS["SubscriptionConfirmation"]
    verified = verifier().verify(request(message))
    assert verified.handshake.confirm_url == message["SubscribeURL"]
    assert verified.read_events() == ()


def test_a_cancellation_is_a_notice():
    """The end of a subscription is told, and is no delivery for a flow."""
    verified = verifier().verify(request(KINDS["UnsubscribeConfirmation"]))
    (event,) = verified.read_events()
    assert verified.handshake is None
    assert (event.event_type, event.is_notice) == ("UnsubscribeConfirmation", True)
