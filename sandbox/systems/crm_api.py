"""A CRM on the loopback: contacts are edited, merged and deleted, and webhooks tell of it.

GET    /v2/contacts?updated_since&limit&cursor&email_address&external_id
POST   /v2/contacts                       {"properties": {…}, "external_id": …}
GET    /v2/contacts/{id}                  of a merged one: the contact it was merged into
PATCH  /v2/contacts/{id}                  {"properties": {…}}, with If-Match if wanted
DELETE /v2/contacts/{id}
POST   /v2/contacts/{id}/merge            {"into": id}
GET    /v2/webhooks                       and POST; PATCH and DELETE /{id}; POST /{id}/ping
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sandbox.systems.crm_contacts_store import CrmContacts, RefusedError
from sandbox.systems.crm_webhooks import EVENTS, CrmWebhooks
from sandbox.systems.stand_in import StandIn
from sandbox.systems.web_server import CutAnswer, WebServer

if TYPE_CHECKING:
    from blocks.http_api import HttpApi

_MAX_LIMIT = 200
Endpoint = Callable[[Request], Awaitable[Response]]


class CrmSandbox(StandIn):
    """A running CRM.

    Attributes:
        contacts: Its contacts; what is done to them here its own people do.
        webhooks: Who is called.
        requests: Method and path of each request, oldest first.
        fail_next: Status that the next so many writes are answered with, e.g. [503, 0]; 0 stands
            for one that is carried out, whose answer is then lost.
    """

    def __init__(self, port: int, token: str, folder: Path | None) -> None:
        self.webhooks = CrmWebhooks(folder and folder / "webhooks.json")
        self.contacts = CrmContacts(folder and folder / "contacts.json", self.webhooks.tell)
        self.requests: list[tuple[str, str]] = []
        self.fail_next: list[int] = []
        self._token = token
        contact, hook = "/v2/contacts/{id}", "/v2/webhooks/{id}"
        routes = [
            self._route("GET", "/v2/contacts", self._list),
            self._route("POST", "/v2/contacts", self._create),
            self._route("GET", contact, self._read),
            self._route("PATCH", contact, self._change),
            self._route("DELETE", contact, self._delete),
            self._route("POST", f"{contact}/merge", self._merge),
            self._route("GET", "/v2/webhooks", self._list_hooks),
            self._route("POST", "/v2/webhooks", self._add_hook),
            self._route("GET", hook, self._read_hook),
            self._route("PATCH", hook, self._change_hook),
            self._route("DELETE", hook, self._remove_hook),
            self._route("POST", f"{hook}/ping", self._ping),
        ]
        self._server = WebServer(Starlette(routes=routes), port=port, name="crm-sandbox")

    @property
    def url(self) -> str:
        """Its address."""
        return self._server.url

    def block(self, **fields: Any) -> HttpApi:
        """The block for it; `fields` go before what would be right."""
        from pydantic import SecretStr

        from blocks.http_api import BearerAuth, HttpApi

        auth = BearerAuth(token=SecretStr(self._token))
        return HttpApi(**{"base_url": f"{self.url}/v2", "auth": auth, **fields})

    def reset(self) -> None:
        """Forget everything and every fault."""
        self.webhooks.clear()
        self.contacts.clear()
        self.requests.clear()
        self.fail_next.clear()

    def stop(self) -> None:
        """Stop listening and calling."""
        self._server.stop()
        self.webhooks.stop()

    def _route(self, method: str, path: str, endpoint: Endpoint) -> Route:
        async def guarded(request: Request) -> Response:
            self.requests.append((request.method, request.url.path))
            given = request.headers.get("authorization", "")
            if not hmac.compare_digest(given.encode(), f"Bearer {self._token}".encode()):
                return JSONResponse({"message": "who are you?"}, 401)
            fault = self.fail_next.pop(0) if self.fail_next and method != "GET" else None
            if fault:
                return JSONResponse({"message": "told to fail"}, fault)
            try:
                answer = await endpoint(request)
            except RefusedError as refusal:
                answer = JSONResponse({"message": str(refusal), **refusal.more}, refusal.status)
            return answer if fault is None else CutAnswer()

        return Route(path, guarded, methods=[method])

    async def _list(self, request: Request) -> Response:
        query = request.query_params
        limit = min(int(query.get("limit", "50")), _MAX_LIMIT)
        position = _position(query.get("cursor")) or ("", "")
        since = query.get("updated_since", "")
        found = [
            contact
            for contact in self.contacts.all()
            if (contact["updated_at"], contact["id"]) > position
            and contact["updated_at"] >= since
            and query.get("external_id") in (None, contact["external_id"])
            and query.get("email_address", "").lower()
            in ("", contact["properties"]["email_address"])
        ]
        more = len(found) > limit
        cursor = _cursor(found[limit - 1]) if more else None
        return JSONResponse({"results": found[:limit], "paging": {"next_cursor": cursor}})

    async def _create(self, request: Request) -> Response:
        body = await _object(request)
        made = self.contacts.add(_properties(body), external_id=body.get("external_id"))
        return _shown(made, 201)

    async def _read(self, request: Request) -> Response:
        return _shown(self.contacts.get(request.path_params["id"]))

    async def _change(self, request: Request) -> Response:
        properties = _properties(await _object(request))
        if_match = request.headers.get("if-match")
        id_ = request.path_params["id"]
        return _shown(self.contacts.change(id_, properties, if_match=if_match))

    async def _delete(self, request: Request) -> Response:
        if_match = request.headers.get("if-match")
        self.contacts.remove(request.path_params["id"], if_match=if_match)
        return Response(status_code=204)

    async def _merge(self, request: Request) -> Response:
        into = str((await _object(request)).get("into", ""))
        return _shown(self.contacts.merge(request.path_params["id"], into=into))

    async def _list_hooks(self, _request: Request) -> Response:
        return JSONResponse({"webhooks": self.webhooks.all()})

    async def _add_hook(self, request: Request) -> Response:
        body = await _object(request)
        events = body.get("events")
        if not str(body.get("url", "")).startswith("http"):
            raise RefusedError(422, "url must be a URL")
        if not isinstance(events, list) or not events or not set(events) <= set(EVENTS):
            raise RefusedError(422, f"events must be some of {', '.join(EVENTS)}")
        added = self.webhooks.add(
            body["url"],
            events,
            description=str(body.get("description", "")),
            secret=body.get("secret"),
        )
        return JSONResponse(added, 201)

    async def _read_hook(self, request: Request) -> Response:
        hook = self.webhooks.get(self._hook_id(request))
        return JSONResponse(hook.shown() if hook else None)

    async def _change_hook(self, request: Request) -> Response:
        body = await _object(request)
        return JSONResponse(self.webhooks.change(self._hook_id(request), body))

    async def _remove_hook(self, request: Request) -> Response:
        self.webhooks.remove(self._hook_id(request))
        return Response(status_code=204)

    async def _ping(self, request: Request) -> Response:
        status = await run_in_threadpool(self.webhooks.ping, self._hook_id(request))
        return JSONResponse({"status": status})

    def _hook_id(self, request: Request) -> str:
        id_: str = request.path_params["id"]
        if self.webhooks.get(id_) is None:
            raise RefusedError(404, "there is no such webhook")
        return id_


def start(
    *,
    port: int = 0,
    token: str = "sandbox-crm-token",  # noqa: S107 - a stand-in's, not a secret
    folder: Path | None = None,
) -> CrmSandbox:
    """Serve.

    Args:
        port: 0 for a free one.
        token: What the Authorization header must hold.
        folder: Where contacts and subscriptions are kept; without, all is forgotten at the end.
    """
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    return CrmSandbox(port, token, folder)


def _shown(contact: dict[str, Any], status: int = 200) -> Response:
    return JSONResponse(contact, status, {"ETag": f'"{contact["version"]}"'})


def _properties(body: dict[str, Any]) -> dict[str, Any]:
    properties = body.get("properties")
    if not isinstance(properties, dict):
        raise RefusedError(422, "properties must be an object")
    return properties


async def _object(request: Request) -> dict[str, Any]:
    try:
        body = orjson.loads(await request.body())
    except orjson.JSONDecodeError as exc:
        raise RefusedError(400, "the body is not JSON") from exc
    if not isinstance(body, dict):
        raise RefusedError(422, "the body must be an object")
    return body


def _cursor(contact: dict[str, Any]) -> str:
    position = orjson.dumps([contact["updated_at"], contact["id"]])
    return base64.urlsafe_b64encode(position).decode()


def _position(cursor: str | None) -> tuple[str, str] | None:
    if not cursor:
        return None
    try:
        updated_at, id_ = orjson.loads(base64.urlsafe_b64decode(cursor))
    except (binascii.Error, ValueError, TypeError) as exc:
        raise RefusedError(400, "cursor is not one this API gave") from exc
    return str(updated_at), str(id_)
