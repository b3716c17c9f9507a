"""A limit on waiting that costs next to nothing: one timer for all that wait."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

Result = TypeVar("Result")


class SharedTimeout:
    """Ends what takes too long, as `asyncio.timeout` does with a timer for each.

    Args:
        timeout_s: For everything that is awaited here.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._since: dict[asyncio.Task[Any], float] = {}  # the longest waiting first
        self._overdue: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def wait_for(self, awaitable: Awaitable[Result]) -> Result:
        """Await it in the calling task, which awaits nothing else here meanwhile.

        Raises:
            TimeoutError: It took too long, and was cancelled.
        """
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None  # noqa: S101 - coroutines run in tasks
        self._since[task] = loop.time()
        if self._timer is None:
            self._timer = loop.call_later(self._timeout_s, self._look, loop)
        try:
            return await awaitable
        except asyncio.CancelledError:
            if task in self._overdue and task.uncancel() == 0:
                raise TimeoutError from None
            raise
        finally:
            del self._since[task]
            self._overdue.discard(task)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        for task, since in self._since.items():
            left_s = since + self._timeout_s - loop.time()
            if left_s > 0:
                self._timer = loop.call_later(left_s, self._look, loop)
                return
            if task not in self._overdue:
                self._overdue.add(task)
                task.cancel()
