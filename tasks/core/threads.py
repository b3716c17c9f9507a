"""What lets a task end when it is cancelled, whatever the threads and libraries do that it uses.

A thread that waits for a silent server cannot be interrupted, and Python does not exit before the
threads of `asyncio.to_thread` and `ThreadPoolExecutor` have ended. Those of this module are
daemons: a task that is cancelled asks its thread to stop, waits for a moment and leaves it behind,
and the end of the process is the thread's end.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Callable, Collection
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
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
_LOOK_EVERY_S = 0.1
_MOST_THREADS = 256  # more than a run handles deliveries at once: nothing waits for its turn

_cancelled: ContextVar[threading.Event | None] = ContextVar("cancelled", default=None)
_is_told: ContextVar[bool] = ContextVar("is told", default=False)


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
        """Take no more calls; see `Executor.shutdown`.

        In a thread whose caller is cancelled it does not wait: a call may hang.
        """
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
                while thread.is_alive() and not _is_caller_cancelled():
                    thread.join(_LOOK_EVERY_S)

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
    return await _call(await _threads_of_loop(), GRACE_S, partial(function, *args, **kwargs))


async def in_thread_without_grace(
    function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
) -> T:
    """Do what `in_thread` does, but leave the thread behind as soon as the caller is cancelled.

    For what promises to end at once, also when its time is out, and bears that the thread is still
    at work.
    """
    return await _call(await _threads_of_loop(), 0, partial(function, *args, **kwargs))


async def in_thread_of(
    threads: DaemonThreadPoolExecutor,
    function: Callable[P, T],
    /,
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """Do what `in_thread` does, in one of the given threads."""
    return await _call(threads, GRACE_S, partial(function, *args, **kwargs))


def check_cancelled() -> None:
    """Stop here if the caller of `in_thread` is cancelled; elsewhere this does nothing.

    Raises:
        asyncio.CancelledError: It is; clean up and let this pass.
    """
    if _is_caller_cancelled():
        raise _cancellation()


def sleep(seconds: float) -> None:
    """Wait so long; raises what `check_cancelled` does as soon as the caller is cancelled."""
    cancelled = _cancelled.get()
    if cancelled is None:
        time.sleep(seconds)
    elif cancelled.wait(seconds):
        raise _cancellation()


def result_of(future: Future[T]) -> T:
    """Wait for what another thread does, as `first_done` does."""
    if not future.done():
        first_done((future,))
    return future.result()


def first_done(futures: Collection[Future[T]]) -> set[Future[T]]:
    """Wait until other threads have done some of this, or the caller of `in_thread` is cancelled.

    Raises:
        asyncio.CancelledError: It is, and the thread was not told before: cleaning up can wait.
    """
    while not (done := wait(futures, _LOOK_EVERY_S, FIRST_COMPLETED).done):
        if _is_caller_cancelled() and not _is_told.get():
            raise _cancellation()
    return done


def is_cancelled() -> bool:
    """Whether somebody wants this task to end, even if a library swallowed that."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def raise_if_cancelled() -> None:
    """Raise what a library swallowed: a task is asked only once to end.

    `asyncio.wait_for` of Python 3.11 is among those: it prefers a result that came meanwhile.
    """
    if is_cancelled():
        raise asyncio.CancelledError


def _is_caller_cancelled() -> bool:
    cancelled = _cancelled.get()
    return cancelled is not None and cancelled.is_set()


def _cancellation() -> asyncio.CancelledError:
    _is_told.set(True)
    return asyncio.CancelledError()


async def _call(threads: DaemonThreadPoolExecutor, grace_s: float, function: Callable[[], T]) -> T:
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - coroutines run in tasks
    cancelled = threading.Event()
    context = copy_context()  # Prefect's settings and run travel in it
    context.run(_cancelled.set, cancelled)
    call = threads.submit(context.run, function)
    try:
        if task.cancelling():
            if grace_s:
                await _end_in_time(call, task, grace_s)
        elif _gives_up_at_s:
            _gives_up_at_s.pop(task, None)  # it was cancelled once, and went on
        return await asyncio.wrap_future(call)
    except asyncio.CancelledError:
        cancelled.set()
        if not call.cancel() and grace_s:
            await _end_in_time(call, task, grace_s)
        raise


_gives_up_at_s: WeakKeyDictionary[asyncio.Task[Any], float] = WeakKeyDictionary()


async def _end_in_time(call: Future[Any], task: asyncio.Task[Any], grace_s: float) -> None:
    """Wait for a call, however it ends, as long as a cancelled task still may.

    Raises:
        asyncio.CancelledError: It has not ended.
    """
    now_s = time.monotonic()
    gives_up_at_s = max(_gives_up_at_s.setdefault(task, now_s + grace_s), now_s + _LEAST_S)
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
