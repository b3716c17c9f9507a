"""Google's token endpoint as far as key files need it: signed assertions and refresh tokens."""

from __future__ import annotations

import base64
import hmac
import json
import secrets
import time
from typing import Any, Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

_EMAIL = "reports@sandbox.iam.gserviceaccount.com"
_JWT_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"


class GoogleTokens:
    """Makes keys, gives tokens for them and knows its own tokens again."""

    def __init__(self) -> None:
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._refresh_token = secrets.token_urlsafe(12)
        self._client_secret = secrets.token_urlsafe(12)
        self._given: set[str] = set()

    def key(self, kind: Literal["service_account", "authorized_user"], token_url: str) -> str:
        """A JSON key file."""
        if kind == "authorized_user":
            document = {
                "type": kind,
                "client_id": "sandbox",
                "client_secret": self._client_secret,
                "refresh_token": self._refresh_token,
                "token_uri": token_url,
            }
        else:
            pem = self._key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            document = {
                "type": kind,
                "client_email": _EMAIL,
                "private_key_id": "1",
                "private_key": pem.decode(),
                "token_uri": token_url,
            }
        return json.dumps(document)

    def grant(self, form: dict[str, str]) -> str | None:
        """A new access token, or None if the form does not earn one."""
        if form.get("grant_type") == _JWT_GRANT:
            right = self._is_signed(form.get("assertion", ""))
        else:
            right = (
                form.get("grant_type") == "refresh_token"
                and hmac.compare_digest(form.get("refresh_token", ""), self._refresh_token)
                and hmac.compare_digest(form.get("client_secret", ""), self._client_secret)
            )
        if not right:
            return None
        token = secrets.token_urlsafe(16)
        self._given.add(token)
        return token

    def is_good(self, authorization: str) -> bool:
        """Whether a header holds a token that was given out and not expired."""
        return authorization.removeprefix("Bearer ") in self._given

    def expire(self) -> None:
        """Let every token given out so far be too old."""
        self._given.clear()

    def _is_signed(self, assertion: str) -> bool:
        """Source: RFC 7515 §5.2, RFC 7523 §3."""
        signed, _, signature = assertion.rpartition(".")
        try:
            self._key.public_key().verify(
                _decoded(signature), signed.encode(), padding.PKCS1v15(), hashes.SHA256()
            )
            claims: dict[str, Any] = json.loads(_decoded(signed.partition(".")[2]))
        except (InvalidSignature, ValueError):
            return False
        return claims.get("iss") == _EMAIL and claims.get("exp", 0) > time.time()


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
