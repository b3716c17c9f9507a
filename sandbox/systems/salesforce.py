"""A Salesforce organisation on the loopback: OAuth, records by REST, and outbound messages.

POST   /services/oauth2/token                              client credentials
GET    /services/data/v62.0/query?q=…                      and queryAll, in pages
POST   /services/data/v62.0/composite/sobjects/{object}    many records by id
GET    /services/data/v62.0/tooling/query?q=…
POST   /services/data/v62.0/tooling/sobjects/{kind}        and GET, PATCH, DELETE of …/{id}
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sandbox.systems.salesforce_messages import SalesforceMessages
from sandbox.systems.salesforce_records import QueryError, SalesforceRecords
from sandbox.systems.salesforce_tooling import ToolingError, ToolingObjects
from sandbox.systems.stand_in import StandIn
from sandbox.systems.web_server import CutAnswer, WebServer

if TYPE_CHECKING:
    from blocks.http_api import HttpApi

ORGANIZATION_ID = "00D000000000062EAA"
USER = "integration@sandbox.example"
_API = "/services/data/v62.0"
_TOKEN = "/services/oauth2/token"  # noqa: S105 - a path
_CURRENCY = "CurrencyIsoCode"
_MAX_RETRIEVED = 2000
_TOOLING_QUERY = re.compile(r"SELECT Id FROM (\w+) WHERE (.+)")
_EQUALS = re.compile(r"(\w+) = '([^']*)'")


@dataclass
class SalesforceFaults:
    """What goes wrong until it is set back.

    Attributes:
        lose_answer: The next change by the Tooling API is made or not, and the connection is cut.
    """

    lose_answer: Literal["taken", "not taken"] | None = None


class SalesforceSandbox(StandIn):
    """A running organisation.

    Attributes:
        records: What is in it; its users change them.
        tooling: What is told of that, and to whom.
        messages: What was told.
        faults: What goes wrong.
        api_calls: How many were made so far.
        max_api_calls: More are refused, as after a day's allowance.
        page_size: Records a page of a query's answer.
        has_currencies: Records have one each; the field is unknown otherwise, as is usual.
        requests: Method and path of each call.
    """

    def __init__(self, port: int, client_secret: str, first_wait_s: float) -> None:
        self.records = SalesforceRecords()
        self.tooling = ToolingObjects()
        self.messages = SalesforceMessages(
            ORGANIZATION_ID, self.tooling, self.records.fields, first_wait_s
        )
        self.records.on_change = self.messages.happened
        self.faults = SalesforceFaults()
        self.api_calls = 0
        self.max_api_calls = 15_000
        self.page_size = 2000
        self.has_currencies = True
        self.requests: list[str] = []
        self._client_secret = client_secret
        self._tokens: set[str] = set()
        self._pages: dict[str, list[dict[str, Any]]] = {}
        tooling = f"{_API}/tooling/sobjects/{{kind}}"
        app = Starlette(
            routes=[
                Route(_TOKEN, self._grant, methods=["POST"]),
                Route(f"{_API}/query", self._query),
                Route(f"{_API}/queryAll", self._query_all),
                Route(f"{_API}/query/{{page}}", self._next_page),
                Route(f"{_API}/composite/sobjects/{{object}}", self._retrieve, methods=["POST"]),
                Route(f"{_API}/tooling/query", self._tooling_query),
                Route(tooling, self._make, methods=["POST"]),
                Route(tooling + "/{id}", self._show, methods=["GET"]),
                Route(tooling + "/{id}", self._change, methods=["PATCH"]),
                Route(tooling + "/{id}", self._remove, methods=["DELETE"]),
            ],
            middleware=[Middleware(BaseHTTPMiddleware, dispatch=self._guard)],
            exception_handlers={ToolingError: _refused, QueryError: _not_understood},
        )
        self._server = WebServer(app, port=port, name="salesforce-sandbox")
        self.messages.url = self.url

    @property
    def url(self) -> str:
        """Its address, in Salesforce's terms the instance."""
        return self._server.url

    def block(self, **fields: Any) -> HttpApi:
        """The block for it; `fields` go before what would be right."""
        from pydantic import SecretStr

        from blocks.http_api import HttpApi, OAuth2Client

        right = {
            "base_url": self.url + _API,
            "auth": OAuth2Client(
                token_url=self.url + _TOKEN,
                client_id="integrations",
                client_secret=SecretStr(self._client_secret),
                client_auth="form",
            ),
        }
        return HttpApi(**{**right, **fields})

    def expire_tokens(self) -> None:
        """Let every token end, as an administrator can."""
        self._tokens.clear()

    def reset(self) -> None:
        """Forget everything and every fault; tokens stay."""
        self.records.reset()
        self.tooling.reset()
        self.messages.reset()
        self.faults = SalesforceFaults()
        self.api_calls = 0
        self.max_api_calls = 15_000
        self.page_size = 2000
        self.has_currencies = True
        self.requests.clear()

    def stop(self) -> None:
        """Stop listening and sending."""
        self.messages.close()
        self._server.stop()

    async def _guard(self, request: Request, go_on: RequestResponseEndpoint) -> Response:
        if request.url.path == _TOKEN:
            return await go_on(request)
        self.requests.append(f"{request.method} {request.url.path.removeprefix(_API)}")
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if token not in self._tokens:
            return _error(401, "INVALID_SESSION_ID", "Session expired or invalid")
        if self.api_calls >= self.max_api_calls:
            answer = _error(403, "REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded.")
        else:
            self.api_calls += 1
            answer = await go_on(request)
        answer.headers["Sforce-Limit-Info"] = f"api-usage={self.api_calls}/{self.max_api_calls}"
        return answer

    async def _grant(self, request: Request) -> Response:
        form = dict(parse_qsl((await request.body()).decode()))
        if form.get("grant_type") != "client_credentials":
            return JSONResponse({"error": "unsupported_grant_type"}, 400)
        if form.get("client_secret") != self._client_secret:
            return JSONResponse({"error": "invalid_client"}, 400)
        token = f"{ORGANIZATION_ID[:15]}!{secrets.token_urlsafe(32)}"
        self._tokens.add(token)
        return JSONResponse(
            {"access_token": token, "instance_url": self.url, "token_type": "Bearer"}
        )

    async def _query(self, request: Request) -> Response:
        return self._page(self.records.query(request.query_params.get("q", "")))

    async def _query_all(self, request: Request) -> Response:
        found = self.records.query(request.query_params.get("q", ""), deleted_too=True)
        return self._page(found)

    async def _next_page(self, request: Request) -> Response:
        rest = self._pages.pop(request.path_params["page"], None)
        if rest is None:
            return _error(404, "INVALID_QUERY_LOCATOR", "invalid query locator")
        return self._page(rest)

    def _page(self, found: list[dict[str, Any]]) -> Response:
        rest = found[self.page_size :]
        document = {"totalSize": len(found), "done": not rest, "records": found[: self.page_size]}
        if rest:
            locator = f"01g{secrets.token_hex(8)}-{self.page_size}"
            self._pages[locator] = rest
            document["nextRecordsUrl"] = f"{_API}/query/{locator}"
        return JSONResponse(document)

    async def _retrieve(self, request: Request) -> Response:
        asked = await request.json()
        ids, names = asked.get("ids", []), asked.get("fields", [])
        if not ids or len(ids) > _MAX_RETRIEVED or not names:
            return _error(400, "INVALID_BATCH_SIZE", f"1 to {_MAX_RETRIEVED} ids, and fields")
        kind = request.path_params["object"]
        if _CURRENCY in names and not self.has_currencies:
            message = f"No such column '{_CURRENCY}' on entity '{kind}'."
            return _error(400, "INVALID_FIELD", message)
        return JSONResponse(self.records.retrieve(kind, ids, names))

    async def _tooling_query(self, request: Request) -> Response:
        asked = _TOOLING_QUERY.fullmatch(request.query_params.get("q", ""))
        if asked is None:
            raise QueryError("unexpected token")
        found = self.tooling.query(dict(_EQUALS.findall(asked[2])), asked[1])
        return JSONResponse({"size": len(found), "done": True, "records": found})

    async def _make(self, request: Request) -> Response:
        document = await request.json()
        if self._lost() == "not taken":
            return CutAnswer()
        lost = self._lost(forget=True)
        id_ = self.tooling.create(request.path_params["kind"], document)
        answer = JSONResponse({"id": id_, "success": True, "errors": []}, 201)
        return CutAnswer() if lost else answer

    async def _show(self, request: Request) -> Response:
        return JSONResponse(self.tooling.show(**_which(request)))

    async def _change(self, request: Request) -> Response:
        self.tooling.change(**_which(request), document=await request.json())
        return Response(status_code=204)

    async def _remove(self, request: Request) -> Response:
        self.tooling.remove(**_which(request))
        return Response(status_code=204)

    def _lost(self, *, forget: bool = False) -> str | None:
        lost = self.faults.lose_answer
        if lost == "not taken" or forget:
            self.faults.lose_answer = None
        return lost


def start(
    *,
    port: int = 0,
    client_secret: str = "sandbox",  # noqa: S107 - a stand-in's, not a secret
    first_wait_s: float = 0.2,
) -> SalesforceSandbox:
    """Serve; everything is forgotten when it stops.

    Args:
        port: 0 for a free one.
        client_secret: Of the client "integrations".
        first_wait_s: Until an outbound message is sent again that was not acknowledged.
    """
    return SalesforceSandbox(port, client_secret, first_wait_s)


def _which(request: Request) -> dict[str, str]:
    return {"kind": request.path_params["kind"], "id_": request.path_params["id"]}


def _error(status: int, code: str, message: str) -> Response:
    return JSONResponse([{"message": message, "errorCode": code}], status)


async def _refused(_request: Request, exc: Exception) -> Response:
    assert isinstance(exc, ToolingError)  # noqa: S101 - registered for it
    return _error(exc.status, exc.code, str(exc))


async def _not_understood(_request: Request, exc: Exception) -> Response:
    return _error(400, "MALFORMED_QUERY", str(exc))
