"""A helpdesk's API on the loopback: tickets in its own words, and no webhooks.

GET    /api/v2/tickets?updated_since&limit&cursor    {"tickets": […], "next_cursor"}, oldest
                                                     change first; changes to the second
POST   /api/v2/tickets                               201 ticket
GET    /api/v2/tickets/{id}                          and PATCH, DELETE
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sandbox.systems.kept_records import KeptRecords
from sandbox.systems.partner_api import PartnerApi, invalid, problem, serving

_FIRST_ID = 7001
_DEFAULT_LIMIT = 50
_ONE = "/tickets/{id:int}"
State = Literal["new", "in_progress", "waiting", "resolved", "closed"]


class HelpdeskTicket(BaseModel):
    """What a ticket holds; the helpdesk adds id, created_at and updated_at."""

    model_config = ConfigDict(extra="forbid", strict=True)

    subject: str = Field(min_length=1, max_length=150)
    body: str = ""
    state: State = "new"
    priority: int = Field(2, ge=1, le=4)
    requester_email: str | None = Field(None, pattern=r"^[^@\s]+@[^@\s]+\.[^@\s]+$")
    tags: list[str] = []
    external_ref: str | None = None
    assignee: str | None = None


class HelpdeskSandbox(PartnerApi):
    """A running helpdesk.

    Attributes:
        tickets: What it has, by id.
        clock: Gives the instants of changes.
    """

    name = "helpdesk"
    base_path = "/api/v2"

    def __init__(self, kept: KeptRecords) -> None:
        super().__init__()
        self.clock: Callable[[], datetime] = lambda: datetime.now(UTC)
        self.tickets: dict[int, dict[str, Any]] = {each["id"]: each for each in kept.load()}
        self._kept = kept
        self._ids = count(max(self.tickets, default=_FIRST_ID - 1) + 1)

    def add(self, **fields: Any) -> dict[str, Any]:
        """A ticket that somebody opened at the helpdesk, by mail or telephone."""
        return self._store(next(self._ids), HelpdeskTicket(**fields))

    def change(self, id_: int, **fields: Any) -> dict[str, Any]:
        """What an agent does with a ticket."""
        return self._store(id_, HelpdeskTicket(**(_asked(self.tickets[id_]) | fields)))

    def routes(self) -> list[Route]:
        """As the module says."""
        return [
            self.route("GET", "/tickets", self._list),
            self.route("POST", "/tickets", self._post, needs_key=True),
            self.route("GET", _ONE, self._get),
            self.route("PATCH", _ONE, self._patch),
            self.route("DELETE", _ONE, self._delete),
        ]

    def _list(self, request: Request, _body: bytes) -> Response:
        query = request.query_params
        limit = min(int(query.get("limit", _DEFAULT_LIMIT)), _DEFAULT_LIMIT)
        after = ("", 0)
        if query.get("cursor"):
            instant, id_ = json.loads(base64.urlsafe_b64decode(query["cursor"]))
            after = (instant, id_)
        since = ""
        if query.get("updated_since"):
            since = _instant(datetime.fromisoformat(query["updated_since"]))
        found = sorted(
            (
                each
                for each in list(self.tickets.values())
                if query.get("external_ref") in (None, each["external_ref"])
                and each["updated_at"] >= since
                and _at(each) > after
            ),
            key=_at,
        )
        page, more = found[:limit], len(found) > limit
        cursor = (
            base64.urlsafe_b64encode(json.dumps(_at(page[-1])).encode()).decode() if more else None
        )
        return JSONResponse({"tickets": page, "next_cursor": cursor})

    def _post(self, _request: Request, body: bytes) -> Response:
        try:
            ticket = HelpdeskTicket.model_validate_json(body)
        except ValidationError as exc:
            return invalid(exc, "the ticket is not valid")
        return JSONResponse(self._store(next(self._ids), ticket), 201)

    def _get(self, request: Request, _body: bytes) -> Response:
        ticket = self.tickets.get(request.path_params["id"])
        return JSONResponse(ticket) if ticket else _unknown()

    def _patch(self, request: Request, body: bytes) -> Response:
        known = self.tickets.get(request.path_params["id"])
        if known is None:
            return _unknown()
        try:
            changed = HelpdeskTicket.model_validate(_asked(known) | json.loads(body))
        except ValidationError as exc:
            return invalid(exc, "the ticket is not valid")
        return JSONResponse(self._store(known["id"], changed))

    def _delete(self, request: Request, _body: bytes) -> Response:
        if self.tickets.pop(request.path_params["id"], None) is None:
            return _unknown()
        self._kept.keep(list(self.tickets.values()))
        return Response(status_code=204)

    def _store(self, id_: int, ticket: HelpdeskTicket) -> dict[str, Any]:
        now = _instant(self.clock())
        created_at = self.tickets[id_]["created_at"] if id_ in self.tickets else now
        shown = {"id": id_, **ticket.model_dump(), "created_at": created_at, "updated_at": now}
        self.tickets[id_] = shown
        self._kept.keep(list(self.tickets.values()))
        return shown


@contextmanager
def start(*, port: int = 0, file: Path | None = None) -> Iterator[HelpdeskSandbox]:
    """Serve until the block ends; what it has is kept in the file, if one is given."""
    sandbox = HelpdeskSandbox(KeptRecords(file))
    with serving(sandbox, port=port):
        yield sandbox


def _instant(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _asked(ticket: dict[str, Any]) -> dict[str, Any]:
    return {name: ticket[name] for name in HelpdeskTicket.model_fields}


def _at(ticket: dict[str, Any]) -> tuple[str, int]:
    return ticket["updated_at"], ticket["id"]


def _unknown() -> Response:
    return problem(404, "there is no such ticket")
