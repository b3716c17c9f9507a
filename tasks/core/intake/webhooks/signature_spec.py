"""Verifies signatures in headers by a declarative spec of how a sender signs."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from string import Formatter
from typing import Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from blocks.errors import SignatureInvalidError
from tasks.core.intake.webhooks.form_fields import body_fields, is_form, query_fields
from tasks.core.intake.webhooks.request import (
    Authenticate,
    Proof,
    WebhookRequest,
    misconfigured,
    unauthentic,
)

_PARTS = frozenset({"method", "url", "body", "form", "id", "timestamp"})
_BODY_ONLY = ("{body}",)
_TIMESTAMP = re.compile(r"[0-9]{1,15}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignatureSpec:
    """How one kind of sender signs.

    Attributes:
        header: The header with the signature; several are alternative names.
        message: What is signed, of {method} {url} {body} {form} {id} {timestamp}.
        algorithm: The hash of an HMAC, or "ed25519".
        encoding: The signature's encoding.
        prefix: Text before a signature; other signatures in the header are ignored.
        separator: Text between several signatures in the header.
        keyed: "hmac", or "prepended" for a plain hash of the secret followed by the message.
        key_encoding: How a secret is decoded to the key.
        key_prefix: Optional start of a secret that is not part of the key.
        timestamp_header: The header with the timestamp.
        timestamp_prefix: Text that marks the timestamp in the signature header instead.
        timestamp_units_per_s: 1000 for milliseconds.
        tolerance_s: How far a timestamp may be off; None for any.
        accepts_future: Whether only old timestamps are refused.
        id_header: The header with the delivery's id, if it is signed.
        url_forms: The spellings of the URL that the sender may have signed.
        applies_if: A header and what it must contain for this spec to apply.
    """

    header: tuple[str, ...]
    message: str = "{body}"
    algorithm: Literal["sha1", "sha256", "sha512", "ed25519"] = "sha256"
    encoding: Literal["hex", "base64"] = "hex"
    prefix: str = ""
    separator: str = ""
    keyed: Literal["hmac", "prepended"] = "hmac"
    key_encoding: Literal["text", "base64"] = "text"
    key_prefix: str = ""
    timestamp_header: tuple[str, ...] = ()
    timestamp_prefix: str = ""
    timestamp_units_per_s: int = 1
    tolerance_s: float | None = 300
    accepts_future: bool = False
    id_header: tuple[str, ...] = ()
    url_forms: Callable[[str], tuple[str, ...]] | None = None
    applies_if: tuple[str, str] | None = None


class SignatureAuthenticator:
    """Verifies signatures of one spec, with any of several secrets."""

    def __init__(self, scheme: str, spec: SignatureSpec, secrets: Sequence[str]) -> None:
        self._scheme = scheme
        self._spec = spec
        self._message = _message_parts(scheme, spec.message)
        keys = [_key(scheme, spec, secret) for secret in secrets]
        self._checks = [_check(scheme, spec, key) for key in keys]

    def __call__(self, request: WebhookRequest) -> Proof:
        """Raise `SignatureInvalidError` unless a signature matches one of the secrets."""
        spec = self._spec
        header = self._header(request, spec.header)
        items = [header.strip()]
        if spec.separator:
            items = [item.strip() for item in header.split(spec.separator)]
        timestamp = self._fresh_timestamp(request, items)
        signed_id = self._header(request, spec.id_header) if spec.id_header else None
        start = len(spec.prefix)
        given = [_octets(item[start:]) for item in items if item.startswith(spec.prefix)]
        for url in spec.url_forms(request.url) if spec.url_forms else (request.url,):
            message = self._rendered(request, url, timestamp, signed_id)
            for check in self._checks:
                if check(message, given):
                    return Proof(signed_id)
        raise unauthentic(
            self._scheme,
            f"no signature in {spec.header[0]} fits; the secret differs from the sender's, or the "
            "request or its public URL was changed on the way",
        )

    def _header(self, request: WebhookRequest, names: tuple[str, ...]) -> str:
        for name in names:
            value = request.headers.get(name)
            if value:
                return value
        raise unauthentic(self._scheme, f"the header {names[0]} is missing")

    def _fresh_timestamp(self, request: WebhookRequest, items: Sequence[str]) -> str:
        spec = self._spec
        if spec.timestamp_header:
            text = self._header(request, spec.timestamp_header)
        elif spec.timestamp_prefix:
            found = (item for item in items if item.startswith(spec.timestamp_prefix))
            text = next(found, "")[len(spec.timestamp_prefix) :]
        else:
            return ""
        if not _TIMESTAMP.fullmatch(text):
            raise unauthentic(self._scheme, "the time stamp is missing or no number")
        if spec.tolerance_s is not None:
            age_s = request.now.timestamp() - int(text) / spec.timestamp_units_per_s
            if age_s > spec.tolerance_s or (age_s < -spec.tolerance_s and not spec.accepts_future):
                raise unauthentic(
                    self._scheme,
                    f"the time stamp is off by more than {spec.tolerance_s:g} s; is this machine's "
                    "clock right, or is it a replay?",
                )
        return text

    def _rendered(
        self, request: WebhookRequest, url: str, timestamp: str, signed_id: str | None
    ) -> bytes:
        if self._message == _BODY_ONLY:
            return request.body
        parts = []
        for part in self._message:
            match part:
                case bytes():
                    parts.append(part)
                case "{body}":
                    parts.append(request.body)
                case "{timestamp}":
                    parts.append(_octets(timestamp))
                case "{id}":
                    parts.append(_octets(signed_id or ""))
                case "{url}":
                    parts.append(_octets(url))
                case "{method}":
                    parts.append(_octets(request.method))
                case _:
                    parts.append(self._form(request))
        return b"".join(parts)

    def _form(self, request: WebhookRequest) -> bytes:
        # Twilio signs a form's fields; for any other body it signs only a hash in the URL.
        try:
            if is_form(request):
                fields = sorted(set(body_fields(request)))
                return _octets("".join(name + value for name, value in fields))
            if not request.body:
                return b""
            hashes = dict(reversed(query_fields(request.url)))
        except ValueError as exc:
            raise unauthentic(self._scheme, "the form has too many fields") from exc
        expected = hashlib.sha256(request.body).hexdigest()
        if not hmac.compare_digest(_octets(hashes.get("bodySHA256", "")), expected.encode()):
            raise unauthentic(self._scheme, "bodySHA256 in the URL does not fit the body")
        return b""


def first_that_accepts(authenticators: Sequence[Authenticate]) -> Authenticate:
    """Try one after the other; if all refuse, raise the last one's error."""
    *others, last = authenticators

    def authenticate(request: WebhookRequest) -> Proof:
        for authenticator in others:
            try:
                return authenticator(request)
            except SignatureInvalidError:
                continue
        return last(request)

    return authenticate if others else last


def choose_by_header(
    scheme: str, choices: Sequence[tuple[SignatureSpec, Authenticate]]
) -> Authenticate:
    """Use only the first spec whose `applies_if` matches the request's headers."""

    def authenticate(request: WebhookRequest) -> Proof:
        for spec, authenticator in choices:
            if spec.applies_if is None:
                return authenticator(request)
            name, content = spec.applies_if
            announced = request.headers.get(name)
            if announced is not None and content in announced:
                return authenticator(request)
        raise unauthentic(scheme, "the headers announce no signature that is accepted here")

    return authenticate


Check = Callable[[bytes, Sequence[bytes]], bool]


def _check(scheme: str, spec: SignatureSpec, key: bytes) -> Check:
    if spec.algorithm == "ed25519":
        return _ed25519_check(scheme, spec, key)
    algorithm = spec.algorithm
    is_hex = spec.encoding == "hex"
    is_hmac = spec.keyed == "hmac"

    def check(message: bytes, given: Sequence[bytes]) -> bool:
        if is_hmac:
            digest = hmac.digest(key, message, algorithm)
        else:
            digest = hashlib.new(algorithm, key + message).digest()
        expected = digest.hex().encode() if is_hex else base64.b64encode(digest)
        for text in given:
            if hmac.compare_digest(expected, text.lower() if is_hex else text):
                return True
        return False

    return check


def _ed25519_check(scheme: str, spec: SignatureSpec, key: bytes) -> Check:
    try:
        public_key = Ed25519PublicKey.from_public_bytes(key)
    except ValueError as exc:
        raise misconfigured(scheme, "a public key is not 32 bytes long; copy it whole") from exc
    decode = bytes.fromhex if spec.encoding == "hex" else None

    def check(message: bytes, given: Sequence[bytes]) -> bool:
        for text in given:
            try:
                signature = (
                    decode(text.decode()) if decode else base64.b64decode(text, validate=True)
                )
                public_key.verify(signature, message)
            except (ValueError, InvalidSignature):
                continue
            return True
        return False

    return check


def _key(scheme: str, spec: SignatureSpec, secret: str) -> bytes:
    text = secret.removeprefix(spec.key_prefix)
    if spec.key_encoding == "text":
        return text.encode("utf-8", "surrogateescape")  # the bytes the environment gave
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError as exc:
        raise misconfigured(
            scheme, f"a secret is not base64 after {spec.key_prefix!r}; copy it whole"
        ) from exc
    if not key:
        raise misconfigured(scheme, "a secret is empty")
    return key


def _message_parts(scheme: str, template: str) -> tuple[bytes | str, ...]:
    known = " ".join(sorted("{" + name + "}" for name in _PARTS))
    try:
        pieces = list(Formatter().parse(template))
    except ValueError as exc:
        raise misconfigured(scheme, f"message {template!r} may hold text and {known}") from exc
    parts: list[bytes | str] = []
    for literal, name, _, _ in pieces:
        if literal:
            parts.append(literal.encode())
        if name is not None:
            if name not in _PARTS:
                raise misconfigured(scheme, f"message {template!r} may hold text and {known}")
            parts.append("{" + name + "}")
    if "{body}" not in parts and "{form}" not in parts:
        raise misconfigured(scheme, f"message {template!r} leaves the body out")
    return tuple(parts)


def _octets(text: str) -> bytes:
    # A sender can put anything into a header; it must not raise.
    return text.encode("utf-8", "surrogatepass")
