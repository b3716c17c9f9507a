"""Every refusal of the API leaves as one problem document.

Source: RFC 9457 (application/problem+json).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http.client import responses as phrases
from typing import Any

import orjson
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response


class ProblemError(Exception):
    """A request that is refused: what the caller is told."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        errors: Sequence[Mapping[str, Any]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = errors
        self.headers = headers

    def response(self) -> Response:
        """The problem document."""
        document: dict[str, Any] = {
            "type": "about:blank",
            "title": phrases.get(self.status, "Error"),
            "status": self.status,
            "detail": self.detail,
        }
        if self.errors:
            document["errors"] = list(self.errors)
        return Response(
            orjson.dumps(document),
            status_code=self.status,
            headers=self.headers,
            media_type="application/problem+json",
        )


def invalid_records(error: ValidationError) -> ProblemError:
    """Name every invalid record of a batch by its index; values are never repeated."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    named = [item for item in found if len(item["loc"]) > 1 and item["loc"][0] == "records"]
    if len(named) < len(found):
        return _not_a_batch(found[0]["type"], found[0]["msg"])
    errors = [
        {
            "index": item["loc"][1],
            "field": ".".join(map(str, item["loc"][2:])),
            "reason": item["msg"],
        }
        for item in named
    ]
    count = len({item["index"] for item in errors})
    return ProblemError(422, f"{count} records are invalid; none was stored", errors=errors)


def invalid_body(error: ValidationError) -> ProblemError:
    """Name every invalid field of a single record."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    if found[0]["type"] == "json_invalid":
        return ProblemError(400, "the body is not JSON")
    errors = [{"field": ".".join(map(str, item["loc"])), "reason": item["msg"]} for item in found]
    return ProblemError(422, "the record is invalid; it was not stored", errors=errors)


async def from_http_exception(_request: Request, error: Exception) -> Response:
    """Give Starlette's own refusals (no such route, wrong method) the same form."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class only
    return ProblemError(error.status_code, error.detail, headers=error.headers).response()


def _not_a_batch(kind: str, message: str) -> ProblemError:
    if kind == "json_invalid":
        return ProblemError(400, "the body is not JSON")
    return ProblemError(422, f'the body must be {{"records": […]}}: {message}')
