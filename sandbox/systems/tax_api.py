"""A third party's tax API on the loopback: right, and as slow as it is told to be."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sandbox.systems.stand_in import StandIn
from sandbox.systems.web_server import WebServer

if TYPE_CHECKING:
    from blocks.http_api import HttpApi

API_KEY = "sandbox-tax-key"
_RATES = {"DE": Decimal("0.19"), "FR": Decimal("0.20"), "SE": Decimal("0.25")}
_CENT = Decimal("0.01")


@dataclass
class TaxFaults:
    """What goes wrong until it is set back.

    Attributes:
        delay_s: Seconds before every answer.
        status: Answered instead of a tax, e.g. 503.
    """

    delay_s: float = 0.0
    status: int | None = None


class TaxSandbox(StandIn):
    """A running API.

    `PUT /sandbox/behaviour {"delay_s": 5}` makes it slow, for people with curl.

    Attributes:
        calculations: How many were asked for.
        faults: What goes wrong.
    """

    def __init__(self, port: int) -> None:
        self.calculations = 0
        self.faults = TaxFaults()
        routes = [
            Route("/v1/calculations", self._calculate, methods=["POST"]),
            Route("/sandbox/behaviour", self._behave, methods=["PUT"]),
        ]
        self._server = WebServer(Starlette(routes=routes), port=port, name="tax-sandbox")

    @property
    def url(self) -> str:
        """Its address."""
        return self._server.url

    def block(self) -> HttpApi:
        """The block for it."""
        from blocks.http_api import ApiKeyAuth, HttpApi

        return HttpApi.model_validate(
            {"base_url": f"{self.url}/v1", "auth": ApiKeyAuth.model_validate({"key": API_KEY})}
        )

    def stop(self) -> None:
        """Stop listening."""
        self._server.stop()

    async def _calculate(self, request: Request) -> Response:
        if request.headers.get("X-API-Key") != API_KEY:
            return JSONResponse({"detail": "X-API-Key is missing or wrong"}, 401)
        self.calculations += 1
        wanted = await request.body()
        await asyncio.sleep(self.faults.delay_s)
        if self.faults.status is not None:
            return JSONResponse({"detail": "out of order"}, self.faults.status)
        try:
            return JSONResponse({"tax": str(_tax(orjson.loads(wanted)))})
        except (ValueError, KeyError, TypeError, InvalidOperation):
            return JSONResponse({"detail": "give country and lines with net"}, 422)

    async def _behave(self, request: Request) -> Response:
        document = orjson.loads(await request.body())
        self.faults = TaxFaults(
            delay_s=float(document.get("delay_s", 0)), status=document.get("status")
        )
        return JSONResponse(vars(self.faults))


def start(*, port: int = 0) -> TaxSandbox:
    """Serve until it is stopped."""
    return TaxSandbox(port)


def _tax(document: dict[str, Any]) -> Decimal:
    rate = _RATES.get(document["country"], Decimal(0))
    net = sum((Decimal(line["net"]) for line in document["lines"]), Decimal(0))
    return (net * rate).quantize(_CENT, rounding=ROUND_HALF_UP)
