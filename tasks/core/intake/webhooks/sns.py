"""Authenticates Amazon SNS over HTTP(S) by RSA signatures with Amazon's certificates."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import httpx
import orjson
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA1, SHA256

from blocks.errors import UnreachableError, UpstreamFailedError
from tasks.core.intake.webhooks.request import (
    Acknowledgement,
    Handshake,
    Proof,
    ReceivedEvent,
    WebhookRequest,
    as_payload,
    unauthentic,
)

FetchCertificate = Callable[[str], bytes]
"""Returns the PEM file at a URL; may raise `TransientError`."""

_NOTIFICATION = "Notification"
_CONFIRMATION = "SubscriptionConfirmation"
_UNSUBSCRIBED = "UnsubscribeConfirmation"

_HOST = r"https://sns\.[a-zA-Z0-9-]{3,}\.amazonaws\.com(\.cn)?"
_CERTIFICATE_URL = re.compile(_HOST + r"/[A-Za-z0-9._/-]+\.pem", re.ASCII)
_CONFIRM_URL = re.compile(_HOST + r"/[!-~]*", re.ASCII)

_NOTIFICATION_KEYS = ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type")
_CONTROL_KEYS = ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type")
# Amazon's page says that a cancellation is signed like a confirmation; its own validator
# for JavaScript leaves the token out. Only Amazon can make either signature.
_SIGNED_KEYS = {
    _NOTIFICATION: (_NOTIFICATION_KEYS,),
    _CONFIRMATION: (_CONTROL_KEYS,),
    _UNSUBSCRIBED: (_CONTROL_KEYS, tuple(key for key in _CONTROL_KEYS if key != "Token")),
}
_HASHES = {"1": SHA1(), "2": SHA256()}  # noqa: S303 - Amazon's older version is SHA-1
_MAX_CERTIFICATES = 32
_FETCH_TIMEOUT_S = 5


class CertificateCache:
    """Public keys by certificate URL; a certificate is fetched once."""

    def __init__(self, fetch: FetchCertificate) -> None:
        self._fetch = fetch
        self._keys: dict[str, RSAPublicKey] = {}

    def public_key(self, scheme: str, url: str) -> RSAPublicKey:
        """Return the key of the certificate at a URL, which must be Amazon's."""
        if not _CERTIFICATE_URL.fullmatch(url):
            raise unauthentic(scheme, "the signing certificate is not on a host of Amazon SNS")
        key = self._keys.get(url)
        if key is None:
            try:
                found = x509.load_pem_x509_certificate(self._fetch(url)).public_key()
            except ValueError as exc:
                raise unauthentic(scheme, "the signing certificate is not one") from exc
            if not isinstance(found, RSAPublicKey):
                raise unauthentic(scheme, "the signing certificate holds no RSA key")
            if len(self._keys) >= _MAX_CERTIFICATES:
                self._keys.clear()
            key = self._keys[url] = found
        return key


def fetch_from_amazon(url: str) -> bytes:
    """Download a certificate.

    Raises:
        UnreachableError: No response; the delivery may be authentic and should be sent again.
        UpstreamFailedError: Amazon's server failed.
        SignatureInvalidError: There is no such certificate.
    """
    try:
        response = httpx.get(url, timeout=_FETCH_TIMEOUT_S, follow_redirects=False)
    except httpx.HTTPError as exc:
        raise UnreachableError(
            "the signing certificate cannot be fetched; allow this machine to reach "
            "sns.<region>.amazonaws.com",
            system="webhook sns",
            operation="fetch certificate",
        ) from exc
    if response.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
        raise UpstreamFailedError(
            f"the signing certificate's host answers {response.status_code}",
            system="webhook sns",
            operation="fetch certificate",
        )
    if response.status_code != httpx.codes.OK:
        raise unauthentic("sns", "the signing certificate does not exist")
    return response.content


_AMAZON = CertificateCache(fetch_from_amazon)


class SnsAuthenticator:
    """Accepts what Amazon signed for one of the allowed topics.

    Anybody with an AWS account can have Amazon sign messages of their own topics, so only the
    topic identifies the sender; it is checked first.
    """

    def __init__(
        self, scheme: str, topic_arns: Sequence[str], fetch_certificate: FetchCertificate | None
    ) -> None:
        self._scheme = scheme
        self._topics = frozenset(topic_arns)
        self._certificates = CertificateCache(fetch_certificate) if fetch_certificate else _AMAZON

    def __call__(self, request: WebhookRequest) -> Proof:
        """Raise `SignatureInvalidError`, or `TransientError` if the certificate is unavailable."""
        scheme = self._scheme
        message = _message(scheme, request.body)
        if message["TopicArn"] not in self._topics:
            raise unauthentic(scheme, "the topic is not one of the allowed topic_arns")
        algorithm = _HASHES.get(message.get("SignatureVersion", ""))
        if algorithm is None:
            raise unauthentic(scheme, "the signature version is neither 1 nor 2")
        try:
            signature = base64.b64decode(message.get("Signature", ""), validate=True)
        except ValueError as exc:
            raise unauthentic(scheme, "the signature is not base64") from exc
        url = message.get("SigningCertURL") or message.get("SigningCertUrl", "")
        key = self._certificates.public_key(scheme, url)
        for names in _SIGNED_KEYS[message["Type"]]:
            try:
                key.verify(signature, _canonical(message, names), PKCS1v15(), algorithm)
            except InvalidSignature:
                continue
            return Proof(document=message)
        raise unauthentic(scheme, "the signature does not fit the message")


def handshake(_request: WebhookRequest, proof: Proof) -> Handshake | None:
    """Return the handshake that confirms a subscription by a GET of the URL in the message."""
    message = proof.document
    if message["Type"] != _CONFIRMATION:
        return None
    if not _CONFIRM_URL.fullmatch(message["SubscribeURL"]):
        raise unauthentic("sns", "the SubscribeURL is not on a host of Amazon SNS")
    return Handshake(Acknowledgement(), confirm_url=message["SubscribeURL"])


def events(_request: WebhookRequest, proof: Proof) -> tuple[ReceivedEvent, ...]:
    """Return the notification, with its message parsed if it is JSON, or the unsubscribe notice."""
    message = proof.document
    payload = {
        "topic_arn": message["TopicArn"],
        "message_id": message["MessageId"],
        "published_at": message["Timestamp"],
        "subject": message.get("Subject"),
        "message": _content(message["Message"]),
        "attributes": _attributes(message.get("MessageAttributes")),
    }
    return (
        ReceivedEvent(
            event_type=message["Type"],
            dedup_key=message["MessageId"],
            payload=as_payload("sns", payload),
            is_notice=message["Type"] == _UNSUBSCRIBED,
        ),
    )


def _message(scheme: str, body: bytes) -> dict[str, Any]:
    try:
        message = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise unauthentic(scheme, "the body is not the JSON that SNS sends") from exc
    if not isinstance(message, dict) or str(message.get("Type")) not in _SIGNED_KEYS:
        raise unauthentic(
            scheme, "the body is no SNS message; switch raw message delivery off, it is not signed"
        )
    # A null Subject counts as missing; every value that is signed or used must be text.
    signed = {key: message[key] for key in _ALL_KEYS if message.get(key) is not None}
    if not all(isinstance(value, str) for value in signed.values()):
        raise unauthentic(scheme, "a field of the SNS message is not text")
    required = set(_SIGNED_KEYS[message["Type"]][-1]) - {"Subject"}
    if not required <= signed.keys():
        raise unauthentic(scheme, "a field of the SNS message is missing")
    return {**signed, "MessageAttributes": message.get("MessageAttributes")}


_ALL_KEYS = (
    *dict.fromkeys(_NOTIFICATION_KEYS + _CONTROL_KEYS),
    "Signature",
    "SignatureVersion",
    "SigningCertURL",
    "SigningCertUrl",
)


def _canonical(message: Mapping[str, Any], names: Sequence[str]) -> bytes:
    return "".join(f"{name}\n{message[name]}\n" for name in names if name in message).encode()


def _content(text: str) -> Any:
    try:
        content = orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
    return content if isinstance(content, dict | list) else text


def _attributes(found: Any) -> dict[str, str]:
    if not isinstance(found, dict):
        return {}
    values = {name: entry.get("Value") for name, entry in found.items() if isinstance(entry, dict)}
    return {name: value for name, value in values.items() if isinstance(value, str)}
