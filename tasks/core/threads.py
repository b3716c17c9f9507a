"""Blocking work in threads that do not keep a cancelled run from its end.

A thread that waits for a silent server cannot be interrupted, and Python does not exit before the
threads of `asyncio.to_thread` and `ThreadPoolExecutor` have ended. Those of this module are
daemons: a task that is cancelled asks its thread to stop, waits for a moment and leaves it behind,
and the end of the process is the thread's end.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Executor, Future
from contextlib import suppress
from contextvars import ContextVar, copy_context
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

P = ParamSpec("P")
T = TypeVar("T")

GRACE_S = 5.0
"""How long a cancelled task waits for its threads, in all."""

_LEAST_S = 0.1  # for each that its clean-up needs when that time is over
_MOST_THREADS = 256  # more than a run handles deliveries at once: nothing waits for its turn

_cancelled: ContextVar[threading.Event | None] = ContextVar("cancelled", default=None)


class DaemonThreadPoolExecutor(Executor):
    """A `ThreadPoolExecutor` whose threads do not keep the process from its exit.

    Args:
        max_workers: Calls at once; more wait for their turn.
        thread_name_prefix: Of the threads' names.
    """

    def __init__(self, max_workers: int, thread_name_prefix: str) -> None:
        self._max_workers = max_workers
        self._name = thread_name_prefix
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._idle = 0
        self._threads: list[threading.Thread] = []
        self._is_shut_down = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call a function in one of the threads; see `Executor.submit`."""
        future: Future[T] = Future()
        with self._lock:
            if self._is_shut_down:
                raise RuntimeError("no more calls after shutdown")
            self._calls.put((future, partial(fn, *args, **kwargs)))
            if self._idle:
                self._idle -= 1
            elif len(self._threads) < self._max_workers:
                name = f"{self._name}_{len(self._threads)}"
                self._threads.append(threading.Thread(target=self._serve, name=name, daemon=True))
                self._threads[-1].start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; see `Executor.shutdown`."""
        with self._lock:
            self._is_shut_down = True
            if cancel_futures:
                with suppress(Empty):
                    while call := self._calls.get_nowait():
                        call[0].cancel()
            for _ in self._threads:
                self._calls.put(None)
        if wait:
            for thread in self._threads:
                thread.join()

    def _serve(self) -> None:
        while call := self._calls.get():
            future, function = call
            if future.set_running_or_notify_cancel():
                self._make(future, function)
            else:
                self._count_idle()
            del call, future, function  # nothing of it is kept while the thread waits

    def _make(self, future: Future[Any], function: Callable[[], Any]) -> None:
        try:
            result = function()
        except BaseException as exc:  # noqa: BLE001 - raised where it is waited for
            self._count_idle()
            future.set_exception(exc)
        else:
            self._count_idle()
            future.set_result(result)

    def _count_idle(self) -> None:
        # before the result is told: the next call then needs no further thread
        with self._lock:
            self._idle += 1


async def in_thread(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function that may block in a thread, as `asyncio.to_thread` does.

    When the caller is cancelled, the function learns it by `check_cancelled` and `sleep`, and has
    `GRACE_S` to end; then it is left behind. What a cancelled task does in threads afterwards, to
    clean up, has what is left of that time.

    Raises:
        asyncio.CancelledError: The caller is cancelled; what the function returned is dropped.
    """
    return await in_thread_of(await _threads_of_loop(), function, *args, **kwargs)


async def in_thread_of(
    threads: DaemonThreadPoolExecutor,
    function: Callable[P, T],
    /,
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """Do what `in_thread` does, in one of the given threads."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - coroutines run in tasks
    cancelled = threading.Event()
    context = copy_context()  # Prefect's settings and run travel in it
    context.run(_cancelled.set, cancelled)
    call = threads.submit(context.run, partial(function, *args, **kwargs))
    try:
        if task.cancelling():
            await _end_in_time(call, task)
        elif _gives_up_at_s:
            _gives_up_at_s.pop(task, None)  # it was cancelled once, and went on
        return await asyncio.wrap_future(call)
    except asyncio.CancelledError:
        cancelled.set()
        if not call.cancel():
            await _end_in_time(call, task)
        raise


def check_cancelled() -> None:
    """Stop here if the caller of `in_thread` is cancelled; elsewhere this does nothing.

    Raises:
        asyncio.CancelledError: It is; clean up and let this pass.
    """
    cancelled = _cancelled.get()
    if cancelled is not None and cancelled.is_set():
        raise asyncio.CancelledError


def sleep(seconds: float) -> None:
    """Wait so long; raises what `check_cancelled` does as soon as the caller is cancelled."""
    cancelled = _cancelled.get()
    if cancelled is None:
        time.sleep(seconds)
    elif cancelled.wait(seconds):
        raise asyncio.CancelledError


_gives_up_at_s: WeakKeyDictionary[asyncio.Task[Any], float] = WeakKeyDictionary()


async def _end_in_time(call: Future[Any], task: asyncio.Task[Any]) -> None:
    """Wait for a call, however it ends, as long as a cancelled task still may.

    Raises:
        asyncio.CancelledError: It has not ended.
    """
    now_s = time.monotonic()
    gives_up_at_s = max(_gives_up_at_s.setdefault(task, now_s + GRACE_S), now_s + _LEAST_S)
    ended = asyncio.wrap_future(call)
    while not ended.done() and (left_s := gives_up_at_s - time.monotonic()) > 0:
        with suppress(asyncio.CancelledError):  # once more: it is cancelled already
            await asyncio.wait((ended,), timeout=left_s)
    if ended.cancel():
        raise asyncio.CancelledError
    if not ended.cancelled():
        ended.exception()  # looked at, so that asyncio does not tell of it


_of_loops: dict[
    asyncio.AbstractEventLoop,
    tuple[DaemonThreadPoolExecutor, AsyncGenerator[DaemonThreadPoolExecutor]],
] = {}


async def _threads_of_loop() -> DaemonThreadPoolExecutor:
    loop = asyncio.get_running_loop()
    if loop not in _of_loops:
        generator = _threads_until_end_of(loop)
        _of_loops[loop] = (await anext(generator), generator)
    return _of_loops[loop][0]


async def _threads_until_end_of(
    loop: asyncio.AbstractEventLoop,
) -> AsyncGenerator[DaemonThreadPoolExecutor]:
    threads = DaemonThreadPoolExecutor(_MOST_THREADS, "in-thread")
    try:
        yield threads
    finally:  # asyncio closes asynchronous generators when a loop ends
        del _of_loops[loop]
        threads.shutdown(wait=False)
