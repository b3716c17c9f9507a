"""How long a caller wants to wait, and what makes two of its requests the same one."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

_WAIT = re.compile(r'\s*"?([0-9]{1,9})"?\s*', re.ASCII)
_QUOTED_KEY = re.compile(r'"((?:[\x20-\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"')
_MAX_KEY_LENGTH = 200


@dataclass(frozen=True, slots=True)
class Preference:
    """What a caller prefers.

    Attributes:
        wait_s: So long it wants to wait; None if it does not say.
        is_async: It would rather not wait.
    """

    wait_s: int | None = None
    is_async: bool = False

    def waits_s(self, deadline_s: float) -> float:
        """How long to let it wait, in seconds: `respond-async` alone means not at all."""
        if self.wait_s is None:
            return 0.0 if self.is_async else deadline_s
        return min(self.wait_s, deadline_s)

    def applied(self, deadline_s: float) -> str:
        """Which preferences were kept to, for `Preference-Applied`; may be empty."""
        kept = []
        if self.is_async:
            kept.append("respond-async")
        if self.wait_s is not None and self.wait_s <= math.ceil(deadline_s):
            kept.append(f"wait={self.wait_s}")
        return ", ".join(kept)


def read_preference(values: Iterable[str]) -> Preference:
    """Read the values of all `Prefer` headers; what is unknown or malformed is ignored.

    Source: RFC 7240 §2, §4.1, §4.3. Of repeated preferences the first counts.
    """
    wait_s: int | None = None
    is_async = False
    for value in values:
        for part in value.split(","):
            name, _, given = part.partition(";")[0].partition("=")
            match name.strip().lower():
                case "respond-async":
                    is_async = True
                case "wait" if wait_s is None and (found := _WAIT.fullmatch(given)):
                    wait_s = int(found[1])
    return Preference(wait_s, is_async)


def read_idempotency_key(value: str | None) -> str | None:
    """The key of an `Idempotency-Key` header, None without one.

    Raises:
        ValueError: It is empty, too long, or holds what no key holds.

    Source: draft-ietf-httpapi-idempotency-key-header: a string in quotation marks; most clients
    leave them out, which is understood as well.
    """
    if value is None:
        return None
    quoted = _QUOTED_KEY.fullmatch(value.strip())
    key = re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else value.strip()
    if not key or len(key) > _MAX_KEY_LENGTH or not (key.isascii() and key.isprintable()):
        raise ValueError(f"Idempotency-Key must be 1 to {_MAX_KEY_LENGTH} printable characters")
    return key


def request_digest(method: str, query: bytes, content_type: str, body: bytes) -> str:
    """What must be the same in all requests with one idempotency key."""
    digest = hashlib.sha256()
    for part in (method.encode(), query, content_type.encode("utf-8", "surrogatepass"), body):
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()
