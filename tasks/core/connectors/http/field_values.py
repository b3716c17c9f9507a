"""Header values are split into their members in time linear in their length, hostile or not."""

from __future__ import annotations

from collections.abc import Iterator


def split_members(value: str, separator: str) -> Iterator[str]:
    """Split outside of "quoted strings" and <angle brackets>; members come stripped."""
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
    """Read `name=value` members; names in lower case, quotes taken off, the first one wins."""
    found: dict[str, str] = {}
    for member in members:
        name, _, value = member.partition("=")
        value = value.strip()
        if len(value) >= 2 and value[0] == value[-1] == '"':
            value = value[1:-1].replace('\\"', '"').replace("\\\\", "\\")
        found.setdefault(name.strip().lower(), value)
    return found
