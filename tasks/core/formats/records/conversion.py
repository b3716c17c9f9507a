"""Converts cells with decimal commas or national date formats for the model."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import date, datetime
from decimal import Decimal
from functools import partial
from typing import Any, get_args

from pydantic import BaseModel

# Takes a text; raises ValueError with the reason if it is invalid.
Conversion = Callable[[str], Any]

_GROUPED = re.compile(r"[+-]?\d{1,3}(?:[.' \u00a0\u202f]\d{3})+(?:,\d+)?|[+-]?\d+(?:,\d+)?")
_GROUPING = str.maketrans({",": ".", **dict.fromkeys(".' \u00a0\u202f")})


def conversions(
    model: type[BaseModel],
    *,
    decimal_comma: bool,
    date_format: str | None,
    datetime_format: str | None,
) -> Mapping[str, Conversion]:
    """Return the conversion of each field that needs one, by the field's type."""
    found: dict[str, Conversion] = {}
    for name, field in model.model_fields.items():
        types = _types(field.annotation)
        if decimal_comma and types & {int, float, Decimal}:
            found[name] = _number
        elif date_format and date in types:
            found[name] = partial(_date, date_format)
        elif datetime_format and datetime in types:
            found[name] = partial(_datetime, datetime_format)
    return found


def _types(annotation: Any) -> set[Any]:
    """Return the types in an annotation, looking through unions and Annotated."""
    parts = get_args(annotation)
    return set().union(*map(_types, parts)) if parts else {annotation}


def _number(text: str) -> str:
    whole, comma, fraction = text.partition(",")
    if whole.isdecimal() and (fraction.isdecimal() or not comma):
        return f"{whole}.{fraction}" if comma else text  # the fast path for nearly all
    stripped = text.strip()
    if not _GROUPED.fullmatch(stripped):
        raise ValueError("should be a number with a decimal comma, such as 1.234,50")
    return stripped.translate(_GROUPING)


def _datetime(written: str, text: str) -> datetime:
    try:
        return datetime.strptime(text.strip(), written)  # noqa: DTZ007  # the model asks for a zone
    except ValueError:
        raise ValueError(f"should be written as {written}") from None


def _date(written: str, text: str) -> date:
    return _datetime(written, text).date()
