"""What lets a task end when it is cancelled, whatever the libraries do that it calls."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def in_daemon_thread(function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Call a function that blocks, in a thread of its own.

    Unlike those of `asyncio.to_thread`, neither the event loop nor the interpreter waits for the
    thread when they end, so a server that does not answer keeps nobody. A caller that is cancelled
    goes on at once; the thread ends when the function does, and its result is dropped.
    """
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()

    def call() -> None:
        try:
            found = function(*arguments, **named)
        except BaseException as exc:  # noqa: BLE001 - raised where it is waited for
            tell(result.set_exception, exc)
        else:
            tell(result.set_result, found)

    def tell(setter: Callable[..., None], value: object) -> None:
        def tell_in_loop() -> None:
            if not result.done():  # the caller was cancelled
                setter(value)

        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(tell_in_loop)

    name = getattr(function, "__qualname__", type(function).__name__)
    threading.Thread(target=call, name=f"calls {name}", daemon=True).start()
    return await result


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
