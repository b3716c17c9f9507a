"""The same logic behind bare Starlette handlers: called right there, and as stock Prefect runs.

FLOOR  POST /nothing, /quote              the logic, called in the handler
PEER   POST /stock-nothing, /stock-quote  run_deployment, awaited, on a stock worker
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import orjson
from anyio.to_thread import run_sync
from prefect.deployments import run_deployment
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from benchmarks.request_reply.measured_flows import quote
from blocks.http_api import HttpApi
from tasks.api import open_api

_TIMEOUT_S = 120
_POLL_S = 0.5  # ten times as often as run_deployment looks by itself


@asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    with ExitStack() as opened:
        for name in ("own-app", "tax"):
            block = await HttpApi.aload(name)
            setattr(app.state, name.replace("-", "_"), opened.enter_context(open_api(block)))
        yield


async def _nothing(request: Request) -> Response:
    return JSONResponse(orjson.loads(await request.body()))


async def _quote(request: Request) -> Response:
    state = request.app.state
    payload = orjson.loads(await request.body())
    answer = await run_sync(quote, state.own_app, state.tax, payload)
    return Response(answer.body, media_type="application/json")


async def _stock(request: Request) -> Response:
    name = request.url.path.strip("/")
    payload: dict[str, Any] = orjson.loads(await request.body())
    run = await run_deployment(
        f"{name}/{name}",
        parameters={"payload": payload},
        timeout=_TIMEOUT_S,
        poll_interval=_POLL_S,
    )
    result = await run.state.aresult()
    if isinstance(result, str):
        return Response(result, media_type="application/json")
    return JSONResponse(result)


app = Starlette(
    lifespan=_lifespan,
    routes=[
        Route("/nothing", _nothing, methods=["POST"]),
        Route("/quote", _quote, methods=["POST"]),
        Route("/stock-nothing", _stock, methods=["POST"]),
        Route("/stock-quote", _stock, methods=["POST"]),
        Route("/healthz", lambda _request: JSONResponse({"process": os.getpid()})),
    ],
)
