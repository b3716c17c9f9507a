"""What a flow answers to a caller: status, headers and body; failures as problem documents."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import responses as phrases
from typing import Any, Self
from urllib.parse import quote

import orjson
from pydantic import BaseModel

from blocks.errors import (
    IntegrationError,
    TransientError,
    UnreachableError,
    UpstreamBusyError,
    UpstreamFailedError,
)

MAX_REPLY_BYTES = 10 * 1024 * 1024
PROBLEM_TYPE = "application/problem+json"
_JSON = "application/json"
_RETRY_AFTER_S = 5
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", re.ASCII)
_VALUE = re.compile(r"[\x20-\x7e\xa0-\xff\t]*")
# the gateway's own to say, or meant for one connection only (RFC 9110 §7.6.1)
_RESERVED = frozenset(
    {
        "connection",
        "content-length",
        "content-type",
        "keep-alive",
        "location",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_WITHOUT_BODY = (204, 205, 304)


@dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP answer as the caller gets it.

    Attributes:
        status: 200 to 599.
        body: At most `MAX_REPLY_BYTES`.
        content_type: Of the body; None if there is none.
        headers: Further ones; those that describe the connection are the gateway's.
    """

    status: int = 200
    body: bytes = b""
    content_type: str | None = None
    headers: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if not 200 <= self.status <= 599:
            raise ValueError(f"an answer's status is 200 to 599, not {self.status}")
        if len(self.body) > MAX_REPLY_BYTES:
            raise ValueError(f"an answer holds at most {MAX_REPLY_BYTES} bytes: give a link")
        if self.body and self.status in _WITHOUT_BODY:
            raise ValueError(f"an answer {self.status} has no body")
        for name, value in (*self.headers, ("content-type", self.content_type or "")):
            if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
                raise ValueError(f"the header {name!r} or its value breaks HTTP")
        for name, _ in self.headers:
            if name.lower() in _RESERVED:
                raise ValueError(f"the header {name!r} is not the flow's to set")

    @classmethod
    def json(
        cls, value: Any, *, status: int = 200, headers: Sequence[tuple[str, str]] = ()
    ) -> Self:
        """A JSON document; Decimal and unknown types become text."""
        if isinstance(value, BaseModel):
            value = value.model_dump(mode="json")
        return cls(status, orjson.dumps(value, default=str), _JSON, tuple(headers))

    @classmethod
    def file(cls, content: bytes, *, name: str, content_type: str) -> Self:
        """A file to be saved under a name.

        Source: RFC 6266.
        """
        disposition = f"attachment; filename*=UTF-8''{quote(name, safe='')}"
        return cls(200, content, content_type, (("Content-Disposition", disposition),))

    @classmethod
    def problem(
        cls, status: int, detail: str, *, headers: Sequence[tuple[str, str]] = (), **members: Any
    ) -> Self:
        """A problem document.

        Args:
            status: 400 to 599.
            detail: What the caller reads: what is wrong and what to do, nothing of our insides.
            headers: Further ones.
            members: More fields of the document.

        Source: RFC 9457.
        """
        document = {
            "type": "about:blank",
            "title": phrases.get(status, "Error"),
            "status": status,
            "detail": detail,
            **{name: value for name, value in members.items() if value is not None},
        }
        return cls(status, orjson.dumps(document, default=str), PROBLEM_TYPE, tuple(headers))

    @classmethod
    def of(cls, value: Any) -> Reply:
        """An answer as it is, anything else as JSON with status 200."""
        return value if isinstance(value, Reply) else cls.json(value)

    @property
    def said(self) -> str:
        """What lists say of it, e.g. "answered 200 with 84 bytes"."""
        return f"answered {self.status} with {len(self.body)} bytes"


def failure_reply(error: IntegrationError | None, run_id: str) -> Reply:
    """What a caller is told when the flow failed: a fitting status, the run, nothing internal.

    Args:
        error: Why; None if the flow has a bug or its process died.
        run_id: The flow run, in which the operator finds the rest.
    """
    wait_s = error.retry_after_s if isinstance(error, TransientError) else None
    retry = [("Retry-After", str(max(1, round(wait_s or _RETRY_AFTER_S))))]
    match error:
        case UpstreamBusyError():
            detail = "a system that is needed for the answer is busy; try again later"
            return Reply.problem(503, detail, headers=retry, run=run_id)
        case UnreachableError() | UpstreamFailedError():
            detail = "a system that is needed for the answer does not work; try again later"
            return Reply.problem(502, detail, headers=retry, run=run_id)
        case TransientError():
            detail = "the answer was not ready in time; try again later"
            return Reply.problem(504, detail, headers=retry, run=run_id)
    detail = "the request could not be handled; its operator finds the reason in the run"
    return Reply.problem(500, detail, run=run_id)
