"""Plain code can use an asynchronous client, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import threading

import pytest

from tasks.core.connectors.folders.background_loop import BackgroundLoop


@pytest.fixture
def loop():
    loop = BackgroundLoop("test-loop")
    yield loop
    loop.close()


async def add(a, b):
    await asyncio.sleep(0)
    return a + b


def test_a_coroutine_runs_to_its_end(loop):
    """Its result comes back, and so does its error."""

    async def fail():
        raise ValueError("from the coroutine")

    assert loop.run(add(1, 2)) == 3
    with pytest.raises(ValueError, match="from the coroutine"):
        loop.run(fail())


async def test_it_works_inside_a_running_loop(loop):
    """An async flow may call plain code that needs a loop of its own."""
    assert loop.run(add(1, 2)) == 3


def test_closing_cancels_what_still_runs():
    """The thread ends, and closing again is no error."""
    loop = BackgroundLoop("test-loop")
    ended = threading.Event()

    async def for_ever():
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    future = loop.submit(for_ever())
    loop.run(add(1, 2))
    loop.close()
    loop.close()
    assert ended.is_set()
    assert future.cancelled()
    assert "test-loop" not in {thread.name for thread in threading.enumerate()}
