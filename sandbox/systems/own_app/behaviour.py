"""How the application misbehaves when it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from sandbox.systems.own_app.problems import ProblemError
from sandbox.systems.own_app.records import RESOURCES

_CUT_AFTER_PROMISING_BYTES = 1000


class Behaviour(BaseModel):
    """What the next API requests meet; a demo page and tests set it.

    Attributes:
        mode: "ok" answers as it should; "slow" waits first; "error" answers `status`;
            "rate_limit" answers 429 with Retry-After; "drop_connection" cuts the answer.
        remaining: After so many requests it behaves again; None for never.
        resource: Only requests to this one are met; None for all.
        delay_s: Seconds to wait before anything else, in every mode but "ok".
        status: The answer of mode "error".
        retry_after_s: What mode "rate_limit" asks for.
        applied: Whether the request takes effect all the same: the hardest case for a client.
    """

    model_config = ConfigDict(extra="forbid")

    mode: Literal["ok", "slow", "error", "rate_limit", "drop_connection"] = "ok"
    remaining: int | None = Field(default=None, ge=0)
    resource: str | None = Field(default=None, pattern=f"^({'|'.join(RESOURCES)})$")
    delay_s: float = Field(default=0, ge=0, le=300, allow_inf_nan=False)
    status: int = Field(default=500, ge=400, le=599)
    retry_after_s: float = Field(default=1, ge=0, allow_inf_nan=False)
    applied: bool = False

    def meets(self, resource: str) -> bool:
        """Whether a request to this resource is met; uses up one of `remaining`."""
        if self.mode == "ok" or self.resource not in (None, resource) or self.remaining == 0:
            return False
        if self.remaining is not None:
            self.remaining -= 1
        return True

    async def answer(self, proceed: Callable[[], Awaitable[Response]]) -> Response:
        """Answer a request that is met, with `proceed` being the right way to do so."""
        await asyncio.sleep(self.delay_s)
        if self.mode == "slow":
            return await proceed()
        if self.applied:
            await proceed()
        if self.mode == "drop_connection":
            return CutResponse()
        if self.mode == "rate_limit":
            raise ProblemError(
                429, "too many requests", headers={"Retry-After": f"{self.retry_after_s:g}"}
            )
        raise ProblemError(self.status, "the application was told to fail")


class CutResponse(Response):
    """Promises a body and ends without it, upon which the server closes the connection."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the head only."""
        head = [(b"content-length", b"%d" % _CUT_AFTER_PROMISING_BYTES)]
        await send({"type": "http.response.start", "status": 200, "headers": head})
