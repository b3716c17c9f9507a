"""Explains to an operator why a record does not fit its model, without its values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

_MAX_REASONS = 5
_SHORTEST_TELLING_VALUE = 4
_PREFIXES = ("Input ", "Value error, ", "Assertion failed, ")


def explained(
    error: ValidationError | None,
    problems: Mapping[str, str],
    values: Mapping[str, Any],
    columns: Mapping[str, str],
) -> tuple[str, str]:
    """Return the first bad column, and one reason that covers all bad columns.

    Args:
        error: The model's error.
        problems: Key to reason, for values that were not passed to the model.
        values: What was passed to the model, by key.
        columns: The columns as the file names them, by key.

    Returns:
        Column, "" if the record as a whole is bad; reason.
    """
    found = [(columns.get(key, key), reason) for key, reason in problems.items()]
    if error is not None:
        for details in error.errors(include_url=False, include_context=False):
            key, *inner = details["loc"] or ("",)
            if key not in problems:
                column = columns.get(str(key), str(key))
                if isinstance(values.get(str(key)), dict | list):
                    column += "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in inner)
                found.append((column, _reason(details)))
    (column, text), *others = found
    for other_column, reason in others[: _MAX_REASONS - 1]:
        text += f" or {reason}" if other_column == column else f"; {other_column}: {reason}"
    left_out = len(others) - (_MAX_REASONS - 1)
    return column, text if left_out <= 0 else f"{text}; and {left_out} more"


def _reason(details: ErrorDetails) -> str:
    """Return what is wrong with a value, in the model's words."""
    value = details["input"]
    if details["type"] == "missing":
        return "is missing"
    if value is None:
        return "is empty"
    if details["type"] == "extra_forbidden":
        return "is not expected"
    if details["type"] == "string_type" and isinstance(value, int | float):
        return "is a number; the model takes it as text with coerce_numbers_to_str"
    message = details["msg"]
    for prefix in _PREFIXES:
        message = message.removeprefix(prefix)
    return _without(value, message)


def _without(value: Any, message: str) -> str:
    """Return the message without the value, which the model's own messages may quote."""
    text = str(value)
    if len(text) < _SHORTEST_TELLING_VALUE:
        return message
    return message.replace(text, "…")
