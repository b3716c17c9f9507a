"""Form-encoded bodies and queries as fields, also when they are hostile."""

from __future__ import annotations

from urllib.parse import parse_qsl

from tasks.core.intake.webhooks.request import WebhookRequest

_MAX_FIELDS = 1000
_FORM = "application/x-www-form-urlencoded"


def is_form(request: WebhookRequest) -> bool:
    """Whether the request says that its body is a form."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() == _FORM


def body_fields(request: WebhookRequest) -> list[tuple[str, str]]:
    """The fields of a form body in their order.

    Raises:
        ValueError: There are more than any sender sends.
    """
    return _fields(request.body.decode("utf-8", "replace"))


def query_fields(url: str) -> list[tuple[str, str]]:
    """The fields of a URL's query in their order.

    Raises:
        ValueError: There are more than any sender sends.
    """
    query = url.partition("#")[0].partition("?")[2]
    return _fields(query.encode("utf-8", "replace").decode())


def _fields(text: str) -> list[tuple[str, str]]:
    return parse_qsl(text, keep_blank_values=True, max_num_fields=_MAX_FIELDS)
