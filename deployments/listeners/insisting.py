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


async def insist(attempt: Callable[[], Awaitable[T]], *, until: asyncio.Event) -> T | None:
    """Try until it works; what is wrong is said once.

    Args:
        attempt: Raises a `TransientError` while it does not work; anything else is an error.
        until: Set to give up.

    Returns:
        What the attempt gave, or None when told to stop.
    """
    wait_s = _FIRST_WAIT_S
    while not until.is_set():
        try:
            return await attempt()
        except TransientError as error:
            if wait_s == _FIRST_WAIT_S:
                _LOG.warning("%s; trying again", error)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await until.wait()
        wait_s = min(_LONGEST_WAIT_S, wait_s * 2)
    return None
