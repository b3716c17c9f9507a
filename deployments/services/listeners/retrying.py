"""Retries a call until it succeeds or the service stops."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from blocks.errors import TransientError

_LOG = logging.getLogger(__name__)
_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 10.0

T = TypeVar("T")


async def retry(attempt: Callable[[], Awaitable[T]], *, until: asyncio.Event) -> T | None:
    """Retry until it succeeds; log the problem once.

    Args:
        attempt: Raises a `TransientError` to be retried; other errors propagate.
        until: Set to give up; cancels a running attempt.

    Returns:
        The attempt's result, or None if `until` was set.
    """
    wait_s = _FIRST_WAIT_S
    while not until.is_set():
        try:
            return await _unless(until, attempt())
        except TransientError as error:
            if wait_s == _FIRST_WAIT_S:
                _LOG.warning("%s; trying again", error)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await until.wait()
        wait_s = min(_LONGEST_WAIT_S, wait_s * 2)
    return None


async def _unless(until: asyncio.Event, attempt: Awaitable[T]) -> T | None:
    """Return the attempt's result; None if the event was set first and cancelled it."""
    trying = asyncio.ensure_future(attempt)
    stopping = asyncio.ensure_future(until.wait())
    try:
        await asyncio.wait({trying, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        trying.cancel()
        await asyncio.wait({trying})
    return None if trying.cancelled() else trying.result()
