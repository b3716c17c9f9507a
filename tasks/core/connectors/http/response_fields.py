"""Finds fields in a response by dotted path, and explains what is wrong if they are missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blocks.errors import BadPayloadError
from tasks.core.connectors.http.errors import Where

_MISSING = object()


def field(body: Any, path: str, where: Where) -> Any:
    """Return the value at a dotted path such as "meta.next"; the whole body for "".

    Raises:
        BadPayloadError: There is none.
    """
    value = optional_field(body, path, _MISSING)
    if value is _MISSING:
        raise BadPayloadError(
            f"the answer has no {path!r} (it is {_shape(body)}); the API changed, or the "
            "pagination is set wrongly",
            **where,
        )
    return value


def optional_field(body: Any, path: str, default: Any = None) -> Any:
    """Like `field`, but return the default if there is none."""
    value = body
    for name in path.split(".") if path else []:
        if not isinstance(value, Mapping) or name not in value:
            return default
        value = value[name]
    return value


def records_of(body: Any, path: str, where: Where) -> list[Any]:
    """Return the list of records at a path."""
    records = field(body, path, where)
    if isinstance(records, list):
        return records
    raise _wrong(path or "the answer", "a list", records, where)


def count_of(body: Any, path: str, where: Where) -> int:
    """Return a number of records or pages, which some APIs write as text."""
    value = field(body, path, where)
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 19:
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise _wrong(path, "a number", value, where)


def flag_of(body: Any, path: str, where: Where) -> bool:
    """Return a yes or no, which some APIs write as text."""
    value = field(body, path, where)
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise _wrong(path, "true or false", value, where)


def _wrong(path: str, expected: str, value: Any, where: Where) -> BadPayloadError:
    return BadPayloadError(f"{path} is {_shape(value)}, not {expected}", **where)


def _shape(value: Any) -> str:
    """Describe a value without revealing its contents."""
    if isinstance(value, Mapping):
        names = ", ".join(sorted(map(str, value))[:10])
        return f"an object with {names}" if names else "an empty object"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return "null" if value is None else f"a {type(value).__name__}"
