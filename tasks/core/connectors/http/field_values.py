"""Splits header values into their members, in linear time even for hostile input."""

from __future__ import annotations

from collections.abc import Iterator


def split_members(value: str, separator: str) -> Iterator[str]:
    """Split outside "quoted strings" and <angle brackets>; yield stripped members."""
    start = 0
    closing = ""
    escaped = False
    for index, char in enumerate(value):
        if escaped:
            escaped = False
        elif closing:
            escaped = char == "\\" and closing == '"'
            if char == closing:
                closing = ""
        elif char == '"':
            closing = '"'
        elif char == "<":
            closing = ">"
        elif char == separator:
            yield value[start:index].strip()
            start = index + 1
    yield value[start:].strip()


def parameters(members: Iterator[str]) -> dict[str, str]:
    """Read `name=value` members: names in lower case, values unquoted; the first one wins."""
    found: dict[str, str] = {}
    for member in members:
        name, _, value = member.partition("=")
        value = value.strip()
        if len(value) >= 2 and value[0] == value[-1] == '"':
            value = value[1:-1].replace('\\"', '"').replace("\\\\", "\\")
        found.setdefault(name.strip().lower(), value)
    return found
