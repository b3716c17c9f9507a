"""Extracts the reason from a refused request's response: short, without likely secrets."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from tasks.core.connectors.http.redaction import MASK

_LONGEST = 300
_NAMED_FAULTS = 5
_TEXT_FIELDS = ("detail", "message", "error_description", "title", "error", "reason", "code")
_FAULT_FIELDS = ("field", "path", "location", "name", "resource")
_SECRETS = re.compile(
    r"""
    (?<=bearer\s)\S+ | (?<=basic\s)\S+                       # credentials
    | (?<=://)[^/\s@]+@                                      # user and password of an address
    | (?<=\?)[^\s"']+                                        # the query of an address
    | (?<![\w@.])[^\s@,;:<>"']+@[\w-]+(?:\.[\w-]+)+          # e-mail addresses
    | (?=[A-Za-z_+/=-]*[0-9])[A-Za-z0-9_+/=-]{24,}           # tokens, hashes, keys
    | \b(?:\d[ -]?){12,19}\b                                 # cards and accounts
    """,
    re.IGNORECASE | re.VERBOSE,
)


def words_of_refusal(headers: Mapping[str, str], body: bytes) -> str:
    """Return the reason that a response gives, in its own words, or "".

    It is taken from the fields that APIs use for it (RFC 9457's among them) or from plain text,
    cut to 300 characters, with credentials, addresses and long tokens masked.
    """
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind.endswith("json"):
        try:
            said = "; ".join(_said_by(orjson.loads(body)))
        except orjson.JSONDecodeError:
            return ""
    elif kind == "text/plain":
        said = body[: 4 * _LONGEST].decode("utf-8", "replace")
    else:
        return ""
    readable = "".join(letter if letter.isprintable() else " " for letter in said)
    masked = _SECRETS.sub(MASK, " ".join(readable.split()))
    return masked if len(masked) <= _LONGEST else masked[: _LONGEST - 1] + "…"


def _said_by(document: Any) -> Iterator[str]:
    if isinstance(document, str):
        yield document
    if isinstance(document, list):
        for each in document[:_NAMED_FAULTS]:
            yield from _said_by(each)
    if not isinstance(document, Mapping):
        return
    nested = document.get("error")
    if isinstance(nested, Mapping):
        yield from _said_by(nested)
    text = next((document[name] for name in _TEXT_FIELDS if _is_text(document.get(name))), None)
    where = next((document[name] for name in _FAULT_FIELDS if _is_text(document.get(name))), None)
    if text is not None:
        yield f"{where}: {text}" if where else str(text)
    if isinstance(document.get("errors"), (list, Mapping)):
        yield from _faults(document["errors"])


def _faults(errors: Any) -> Iterator[str]:
    if isinstance(errors, Mapping):  # {"field": ["reason", …]}
        for name, reasons in list(errors.items())[:_NAMED_FAULTS]:
            for reason in _said_by(reasons):
                yield f"{name}: {reason}"
    else:
        yield from _said_by(errors)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())
