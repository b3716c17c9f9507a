"""An API of pages that answers after a latency; `/records?count=N` sets how many there are.

Pages are asked for by number, or by cursor with `updated_since`; both in the order of change.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs

import uvicorn

PAGE_SIZE = 200
_START = datetime(2026, 1, 1, tzinfo=UTC)
_pages: list[bytes] = []


def record(number: int) -> dict[str, Any]:
    """About 250 bytes, like an order without its lines."""
    changed_at = _START + timedelta(seconds=number // 3)
    return {
        "id": f"MP-{number:08}",
        "updated_at": changed_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "placed_at": changed_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "buyer": {"name": f"Buyer {number % 977}", "country": "DE"},
        "state": "paid",
        "amount": f"{number % 900}.50",
        "currency": "EUR",
        "note": "leave it with the neighbours, please",
    }


def render(count: int) -> None:
    """Make all answers beforehand."""
    _pages.clear()
    total = -(-count // PAGE_SIZE)
    for page in range(total):
        records = [record(n) for n in range(page * PAGE_SIZE, min((page + 1) * PAGE_SIZE, count))]
        cursor = str(page + 1) if page + 1 < total else None
        body = {"records": records, "total_pages": total, "next_cursor": cursor}
        _pages.append(json.dumps(body).encode())


def serve(latency_s: float) -> None:
    """Listen on a free port, which is printed."""

    async def answer(scope: Any, _receive: Any, send: Any) -> None:
        query = parse_qs(scope["query_string"].decode())
        if scope["path"] == "/records":
            render(int(query["count"][0]))
            body = b"{}"
        else:
            await asyncio.sleep(latency_s)
            number = (
                int(query["page"][0]) - 1 if "page" in query else int(query.get("cursor", "0")[0])
            )
            body = _pages[number]
        head = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": body})

    config = uvicorn.Config(answer, log_level="critical", lifespan="off", interface="asgi3")
    server = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", 0))
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    server.run(sockets=[listener])


if __name__ == "__main__":
    serve(float(sys.argv[1]) / 1000)
