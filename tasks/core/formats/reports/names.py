"""Builds a report's file name from a template with the report's name and period."""

from __future__ import annotations

import string
import unicodedata
from datetime import datetime, timedelta

from tasks.core.formats.reports.period import Period

_MAX_BYTES = 200  # file systems take 255; temporary names add a prefix and a suffix
_FORBIDDEN = frozenset('/\\:*?"<>|')


def report_name(template: str, *, report: str, period: Period, extension: str) -> str:
    """Fill a name template such as `"{report}-{start:%Y-%m-%d}"`.

    Args:
        template: Text with the fields `{report}`, `{zone}` and the instants `{start}`, `{end}`
            (wall clock in the period's zone) and `{last_day}`, each of which takes a strftime
            format: `{end:%G-W%V}` is the ISO week. Instants without one read 2026-07-23.
        report: The report's name.
        period: What the report covers.
        extension: With its dot; added unless the name ends in it already.

    Raises:
        ValueError: The template has an unknown field, or the result is no safe file name.
    """
    values: dict[str, str | datetime] = {
        "report": report,
        "zone": period.zone.replace("/", "-"),
        "start": period.start,
        "end": period.end,
        "last_day": period.end - timedelta(microseconds=1),
    }
    parts: list[str] = []
    for literal, field, spec, conversion in string.Formatter().parse(template):
        parts.append(literal)
        if field is None:
            continue
        if field not in values or conversion:
            known = ", ".join(f"{{{name}}}" for name in values)
            raise ValueError(f"the name template has {{{field}}}; known fields are {known}")
        value = values[field]
        if isinstance(value, str):
            parts.append(format(value, spec or ""))
        else:
            parts.append(value.strftime(spec or "%Y-%m-%d"))
    name = unicodedata.normalize("NFC", "".join(parts))
    if not name.lower().endswith(extension.lower()):
        name += extension
    return _checked(name)


def _checked(name: str) -> str:
    bad = sorted({char for char in name if char in _FORBIDDEN or not char.isprintable()})
    if bad:
        raise ValueError(f"the file name {name!r} has {' '.join(map(repr, bad))}; take it out")
    if not name or name != name.strip() or name.startswith(".") or name.endswith("."):
        raise ValueError(
            f"the file name {name!r} is empty, or starts or ends with a dot or a blank"
        )
    if len(name.encode()) > _MAX_BYTES:
        raise ValueError(f"the file name is over {_MAX_BYTES} bytes long: shorten the template")
    return name
