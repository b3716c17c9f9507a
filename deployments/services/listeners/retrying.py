"""Tries something again and again until it works or we are told to stop."""

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
    """Try until it works; what is wrong is said once.

    Args:
        attempt: Raises a `TransientError` while it does not work; anything else is an error.
        until: Set to give up; an attempt that takes long is cancelled.

    Returns:
        What the attempt gave, or None when told to stop.
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
    """What the attempt gives; None if it was cancelled, because the event was set first."""
    trying = asyncio.ensure_future(attempt)
    stopping = asyncio.ensure_future(until.wait())
    try:
        await asyncio.wait({trying, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        trying.cancel()
        await asyncio.wait({trying})
    return None if trying.cancelled() else trying.result()
