"""Twilio's messages API on the loopback: takes text messages and shows what it took."""

from __future__ import annotations

import base64
import hmac
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import parse_qsl, urlencode

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sandbox.systems.stand_in import StandIn
from sandbox.systems.web_server import CutAnswer, WebServer

if TYPE_CHECKING:
    from blocks.sms_account import SmsAccount

_ACCOUNT = f"AC{'0123456789abcdef' * 2}"
_PATH = "/2010-04-01/Accounts/{account}/Messages.json"


@dataclass
class SmsFaults:
    """What goes wrong until it is set back.

    Attributes:
        answer: Status instead of taking the message, with Twilio's code, e.g. (429, 20429).
        retry_after_s: Told with the answer.
        lose_answer: The message is taken or not, and then the connection is cut.
        refused_numbers: Number to code, e.g. {"+4900000000": 21211}.
    """

    answer: tuple[int, int] | None = None
    retry_after_s: int | None = None
    lose_answer: Literal["taken", "not taken"] | None = None
    refused_numbers: dict[str, int] = field(default_factory=dict)


class TwilioSandbox(StandIn):
    """A running API.

    Attributes:
        messages: What was taken, oldest first, as the API shows it.
        faults: What goes wrong.
    """

    def __init__(self, port: int, secret: str) -> None:
        self.messages: list[dict[str, Any]] = []
        self.faults = SmsFaults()
        self._secret = secret
        routes = [
            Route(_PATH, self._create, methods=["POST"]),
            Route(_PATH, self._list, methods=["GET"]),
        ]
        self._server = WebServer(Starlette(routes=routes), port=port, name="twilio-sandbox")

    @property
    def url(self) -> str:
        """Its address."""
        return self._server.url

    def block(self, **fields: Any) -> SmsAccount:
        """The block for it; `fields` go before what would be right."""
        from blocks.sms_account import SmsAccount

        right = {
            "account_sid": _ACCOUNT,
            "secret": self._secret,
            "sender": "+15005550006",
            "base_url": self.url,
        }
        return SmsAccount(**{**right, **fields})

    def reset(self) -> None:
        """Forget all messages and faults."""
        self.messages.clear()
        self.faults = SmsFaults()

    def stop(self) -> None:
        """Stop listening."""
        self._server.stop()

    async def _create(self, request: Request) -> Response:
        form = dict(parse_qsl((await request.body()).decode()))
        to, body = form.get("To", ""), form.get("Body", "")
        if error := self._refusal(request, to, body):
            return error
        message = {
            "sid": f"SM{secrets.token_hex(16)}",
            "account_sid": _ACCOUNT,
            "to": to,
            "from": form.get("From"),
            "messaging_service_sid": form.get("MessagingServiceSid"),
            "body": body,
            "status": "queued",
            "num_segments": "1",
            "direction": "outbound-api",
            "date_created": format_datetime(datetime.now(UTC)),
            "error_code": None,
        }
        if self.faults.lose_answer != "not taken":
            self.messages.append(message)
        if self.faults.lose_answer:
            return CutAnswer()
        return JSONResponse(message, 201)

    async def _list(self, request: Request) -> Response:
        if not self._is_known(request):
            return _error(401, 20003)
        query = request.query_params
        found = [sent for sent in reversed(self.messages) if query.get("To") in (None, sent["to"])]
        size, page = int(query.get("PageSize", "50")), int(query.get("Page", "0"))
        more = len(found) > (page + 1) * size
        following = {**query, "Page": str(page + 1)}
        return JSONResponse(
            {
                "messages": found[page * size : (page + 1) * size],
                "page": page,
                "page_size": size,
                "next_page_uri": f"{request.url.path}?{urlencode(following)}" if more else None,
            }
        )

    def _refusal(self, request: Request, to: str, body: str) -> Response | None:
        if not self._is_known(request):
            return _error(401, 20003)
        if self.faults.answer:
            return _error(*self.faults.answer, retry_after_s=self.faults.retry_after_s)
        if to in self.faults.refused_numbers:
            return _error(400, self.faults.refused_numbers[to])
        if not body or len(body) > 1600:
            return _error(400, 21617 if body else 21602)
        return None

    def _is_known(self, request: Request) -> bool:
        pair = base64.b64encode(f"{_ACCOUNT}:{self._secret}".encode()).decode()
        given = request.headers.get("authorization", "")
        return hmac.compare_digest(given.encode(), f"Basic {pair}".encode())


def start(*, port: int = 0, secret: str = "sandbox") -> TwilioSandbox:  # noqa: S107
    """Take text messages; they are gone when it stops.

    Args:
        port: 0 for a free one.
        secret: The account's auth token.
    """
    return TwilioSandbox(port, secret)


def _error(status: int, code: int, *, retry_after_s: int | None = None) -> Response:
    headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
    document = {"code": code, "message": "refused", "more_info": "", "status": status}
    return JSONResponse(document, status, headers)
