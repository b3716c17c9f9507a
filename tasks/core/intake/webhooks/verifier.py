"""Verifies that a webhook comes from its claimed sender: one entry point for all senders.

Every unauthentic request raises `SignatureInvalidError`, and nothing else does; unusable secrets
or options raise `MisconfiguredError`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from tasks.core.intake.webhooks.options import ApiKeyOptions
from tasks.core.intake.webhooks.reading import ReadEvents, Reading, reader
from tasks.core.intake.webhooks.request import (
    VerifiedRequest,
    WebhookRequest,
    misconfigured,
)
from tasks.core.intake.webhooks.schemes import SCHEMES, Scheme

__all__ = ["SCHEMES", "VerifiedRequest", "Verifier", "verify"]

_CREDENTIAL_HEADERS = frozenset({"authorization", "proxy-authorization", "cookie"})


def verify(
    scheme: str,
    *,
    secrets: Sequence[str],
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    now: datetime,
    **options: Any,
) -> VerifiedRequest:
    """Verify one request.

    Args:
        scheme: A name in `SCHEMES`, e.g. "github".
        secrets: One, or several while a secret is being changed. What a secret is depends on
            the scheme: a signing secret, "user:password", a token, or for senders without shared
            secrets what is allowed (SNS topics, Salesforce organisations).
        method: The request's method.
        url: The public URL as the sender knows it, with its query.
        headers: Names in any case.
        body: Raw, as it arrived.
        now: Aware instant that timestamps are compared with.
        options: As the scheme's options in `tasks.core.intake.webhooks.options` describe.

    Raises:
        SignatureInvalidError: The sender could not be authenticated.
        MisconfiguredError: No secret, unknown scheme or unusable option.
        TransientError: Only for "sns": the signing certificate is unavailable right now.
    """
    if now.tzinfo is None:
        raise ValueError("instants are aware: give datetime.now(UTC), not datetime.now()")
    lowered = {name.lower(): value for name, value in headers.items()}
    request = WebhookRequest(method.upper(), url, lowered, bytes(body), now)
    return Verifier(scheme, secrets=secrets, options=options).verify(request)


class Verifier:
    """A scheme with its secrets, made once and used for many requests.

    Attributes:
        name: The scheme's name.
        scheme: The specifics of the sender.
        credential_headers: Headers that hold a secret and must not be stored or logged.
    """

    def __init__(
        self,
        scheme: str,
        *,
        secrets: Sequence[str],
        options: Mapping[str, Any] | None = None,
        reading: Mapping[str, Any] | None = None,
    ) -> None:
        """Prepare everything that does not depend on a request.

        Args:
            scheme: A name in `SCHEMES`.
            secrets: As for `verify`.
            options: As for `verify`.
            reading: Fields of `Reading` that differ from the scheme's own.

        Raises:
            MisconfiguredError: The scheme, secrets or options are unusable.
        """
        self.name = scheme
        self.scheme = _known_scheme(scheme)
        chosen = _valid(scheme, self.scheme, options or {})
        self._authenticate = self.scheme.authenticator(
            scheme, _usable(scheme, self.scheme, secrets), chosen
        )
        self.credential_headers = _CREDENTIAL_HEADERS
        if isinstance(chosen, ApiKeyOptions):
            self.credential_headers |= {chosen.header.lower()}
        self._read_events = _reader(scheme, self.scheme, reading or {})

    def verify(self, request: WebhookRequest) -> VerifiedRequest:
        """Like the function `verify`, but the request's header names must be in lower case."""
        scheme = self.scheme
        proof = self._authenticate(request)
        handshake = scheme.handshake(request, proof) if scheme.handshake else None
        read_events = self._read_events
        return VerifiedRequest(
            scheme=self.name,
            signed_id=proof.signed_id,
            handshake=handshake,
            acknowledgement=scheme.acknowledgement,
            body=scheme.kept_body(request, proof) if scheme.kept_body else request.body,
            read_events=lambda: () if handshake else read_events(request, proof),
        )


def _known_scheme(name: str) -> Scheme:
    scheme = SCHEMES.get(name)
    if scheme is None:
        raise misconfigured(name, f"there is no such scheme; take one of {', '.join(SCHEMES)}")
    return scheme


def _usable(name: str, scheme: Scheme, secrets: Sequence[str]) -> list[str]:
    if isinstance(secrets, str | bytes):
        raise misconfigured(name, "secrets are a list; one secret is a list of one")
    if scheme.needs_secrets and not secrets:
        raise misconfigured(name, "there is no secret; set at least one")
    if not all(isinstance(secret, str) and secret.strip() for secret in secrets):
        raise misconfigured(name, "a secret is empty; every request would pass with it")
    return list(secrets)


def _valid(name: str, scheme: Scheme, options: Mapping[str, Any]) -> Any:
    try:
        return scheme.options.model_validate(dict(options))
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "options"
        known = ", ".join(scheme.options.model_fields) or "none"
        raise misconfigured(
            name, f"option {where}: {first['msg']}; the options of this scheme are: {known}"
        ) from exc


def _reader(name: str, scheme: Scheme, changes: Mapping[str, Any]) -> ReadEvents:
    if isinstance(scheme.reading, Reading):
        return reader(name, replace(scheme.reading, **changes))
    if changes:
        raise misconfigured(
            name, f"{', '.join(changes)} cannot be set: the sender's format decides them"
        )
    return scheme.reading
