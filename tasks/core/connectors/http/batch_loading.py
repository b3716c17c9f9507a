"""Combines single lookups into one call: each waits a moment, and one call serves all.

Deliveries are handled one by one; without batching, each would cost a call to an API that counts
calls and can return a hundred records at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

from blocks.errors import UpstreamRejectedError
from tasks.core.threads import in_thread

K = TypeVar("K")
V = TypeVar("V")


class BatchLoader(Generic[K, V]):
    """Collects keys for a moment and fetches their values with one call in a thread.

    Args:
        fetch: Returns the values of the given keys; may block and raise.
        gather_s: Seconds that the first caller waits for others.
        max_keys: This many keys are fetched at once, without waiting longer.
    """

    def __init__(
        self,
        fetch: Callable[[Sequence[K]], Mapping[K, V]],
        *,
        gather_s: float = 0.05,
        max_keys: int = 200,
    ) -> None:
        self._fetch = fetch
        self._gather_s = gather_s
        self._max_keys = max_keys
        self._waiting: dict[K, asyncio.Future[V]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._calls: set[asyncio.Task[None]] = set()

    async def load(self, key: K) -> V:
        """Return the value of one key, fetched after this call.

        Raises:
            IntegrationError: What `fetch` raised. If a call is refused because of one key, the
                others are fetched without it.
        """
        future = self._waiting.get(key)
        if future is None:
            loop = asyncio.get_running_loop()
            future = self._waiting[key] = loop.create_future()
            if len(self._waiting) >= self._max_keys:
                self._go()
            elif self._timer is None:
                self._timer = loop.call_later(self._gather_s, self._go)
        # A cancelled caller must not cancel the value for the others.
        return await asyncio.shield(future)

    def _go(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        batch, self._waiting = self._waiting, {}
        call = asyncio.create_task(self._fetch_batch(batch))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

    async def _fetch_batch(self, batch: dict[K, asyncio.Future[V]]) -> None:
        keys = list(batch)
        try:
            values = await in_thread(self._fetch, keys)
        except UpstreamRejectedError as exc:
            if len(keys) == 1:
                _fail(batch[keys[0]], exc)
                return
            half = len(keys) // 2
            for part in (keys[:half], keys[half:]):
                await self._fetch_batch({key: batch[key] for key in part})
        except BaseException as exc:
            for future in batch.values():
                _fail(future, exc)
            if not isinstance(exc, Exception):
                raise
        else:
            for key, future in batch.items():
                if not future.done():
                    future.set_result(values[key])


def _fail(future: asyncio.Future[V], exc: BaseException) -> None:
    if not future.done():
        future.set_exception(exc)
        future.exception()  # marks it as retrieved: perhaps nobody waits any more
