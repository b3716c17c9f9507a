"""The ceilings: the gateway's server with handlers that read the body and do nothing."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

_START = {"type": "http.response.start", "status": 202, "headers": [(b"content-length", b"0")]}
_BODY = {"type": "http.response.body", "body": b""}


async def bare(_scope, receive, send):
    """Not even a framework: what the server alone can do."""
    while (await receive()).get("more_body", False):
        pass
    await send(_START)
    await send(_BODY)


async def _empty(request):
    await request.body()
    return Response(status_code=202)


starlette = Starlette(routes=[Route("/webhooks/github", _empty, methods=["POST"])])
