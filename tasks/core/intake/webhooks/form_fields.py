"""Parses form-encoded bodies and queries, even hostile ones."""

from __future__ import annotations

from urllib.parse import parse_qsl

from tasks.core.intake.webhooks.request import WebhookRequest

_MAX_FIELDS = 1000
_FORM = "application/x-www-form-urlencoded"


def is_form(request: WebhookRequest) -> bool:
    """Return whether the request declares its body as a form."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() == _FORM


def body_fields(request: WebhookRequest) -> list[tuple[str, str]]:
    """Return the fields of a form body in order.

    Raises:
        ValueError: There are too many.
    """
    return _fields(request.body.decode("utf-8", "replace"))


def query_fields(url: str) -> list[tuple[str, str]]:
    """Return the fields of a URL's query in order.

    Raises:
        ValueError: There are too many.
    """
    query = url.partition("#")[0].partition("?")[2]
    return _fields(query.encode("utf-8", "replace").decode())


def _fields(text: str) -> list[tuple[str, str]]:
    return parse_qsl(text, keep_blank_values=True, max_num_fields=_MAX_FIELDS)
