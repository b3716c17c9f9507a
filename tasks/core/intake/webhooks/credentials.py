"""Authenticates senders by a credential instead of a signature: Basic, Bearer, API key or none."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Sequence

from tasks.core.intake.webhooks.request import Authenticate, Proof, WebhookRequest, unauthentic

_PROVEN = Proof()


def basic(scheme: str, secrets: Sequence[str]) -> Authenticate:
    """Return a check for HTTP Basic.

    Args:
        scheme: Its name, for errors.
        secrets: "user:password" each; without a colon, a password for any user.

    Source: RFC 7617.
    """
    expected = [_octets(secret) for secret in secrets]

    def authenticate(request: WebhookRequest) -> Proof:
        try:
            given = base64.b64decode(_authorization(scheme, request, "basic"), validate=True)
        except ValueError as exc:
            raise unauthentic(scheme, "the Authorization header is malformed") from exc
        _, colon, password = given.partition(b":")
        if not colon:
            raise unauthentic(scheme, "the Authorization header is malformed")
        for secret in expected:
            if hmac.compare_digest(given if b":" in secret else password, secret):
                return _PROVEN
        raise unauthentic(scheme, "user name or password is wrong")

    return authenticate


def bearer(scheme: str, secrets: Sequence[str]) -> Authenticate:
    """Return a check for a fixed token in `Authorization: Bearer …`.

    Source: RFC 6750 §2.1.
    """
    expected = [_octets(secret) for secret in secrets]

    def authenticate(request: WebhookRequest) -> Proof:
        _compare(scheme, expected, _authorization(scheme, request, "bearer"))
        return _PROVEN

    return authenticate


def api_key(scheme: str, secrets: Sequence[str], header: str) -> Authenticate:
    """Return a check for a fixed key in its own header."""
    name = header.lower()
    expected = [_octets(secret) for secret in secrets]

    def authenticate(request: WebhookRequest) -> Proof:
        _compare(scheme, expected, request.headers.get(name, ""))
        return _PROVEN

    return authenticate


def anyone(_request: WebhookRequest) -> Proof:
    """Accept every request: such an endpoint relies on the network or an IP allow-list."""
    return _PROVEN


def _authorization(scheme: str, request: WebhookRequest, kind: str) -> str:
    given, _, credential = request.headers.get("authorization", "").partition(" ")
    if given.lower() != kind:
        raise unauthentic(scheme, f"there is no Authorization header of kind {kind}")
    return credential.strip()


def _compare(scheme: str, expected: Sequence[bytes], text: str) -> None:
    given = _octets(text)
    if not any(hmac.compare_digest(secret, given) for secret in expected):
        raise unauthentic(scheme, "the credential is missing or wrong")


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
