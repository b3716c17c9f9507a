"""The Link header, by which many APIs name their next page."""

from __future__ import annotations

from tasks.core.connectors.http.field_values import parameters, split_members


def parse_links(value: str) -> dict[str, str]:
    """Read a Link header, or several joined by commas; skip malformed links.

    Returns:
        Relation in lower case to target, which may be relative; a relation's first link wins.

    Source: RFC 8288 §3.
    """
    links: dict[str, str] = {}
    for link in split_members(value, ","):
        target, *rest = split_members(link, ";")
        if len(target) < 2 or target[0] != "<" or target[-1] != ">":
            continue
        for relation in parameters(iter(rest)).get("rel", "").lower().split():
            links.setdefault(relation, target[1:-1].strip())
    return links
