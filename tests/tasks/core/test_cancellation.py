"""Blocking calls that nobody waits for, and cancellations that were swallowed."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest

from tasks.core.cancellation import in_daemon_thread, is_cancelled, raise_if_cancelled


async def test_a_call_in_a_thread_gives_its_result_or_its_error():
    """The caller gets what the function returns or raises, as if it had called it."""
    assert await in_daemon_thread(int, "ff", base=16) == 255
    with pytest.raises(ValueError, match="invalid literal"):
        await in_daemon_thread(int, "x")


async def test_a_cancelled_caller_does_not_wait_for_the_thread():
    """It goes on at once, and what the thread gives later harms nobody."""
    release = threading.Event()
    waiting = asyncio.create_task(in_daemon_thread(release.wait))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait({waiting})
    assert waiting.cancelled()
    assert not release.is_set()
    release.set()


@pytest.mark.parametrize("ending", ["cancelled", "abandoned"])
def test_neither_loop_nor_interpreter_waits_for_the_thread(ending):
    """A process ends though a thread of its own still blocks."""
    wait = "await asyncio.wait({calling}, timeout=0.1)\n    calling.cancel()\n"
    code = (
        "import asyncio, threading\n"
        "from tasks.core.cancellation import in_daemon_thread\n"
        "async def main():\n"
        "    calling = asyncio.create_task(in_daemon_thread(threading.Event().wait))\n"
        f"    {wait if ending == 'cancelled' else 'await asyncio.sleep(0.1)'}\n"
        "asyncio.run(main())\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


async def test_a_swallowed_cancellation_can_be_heeded_later():
    """A task whose library swallowed it still knows that it is to end."""
    heeded = []

    async def swallow():
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            heeded.append(is_cancelled())
        raise_if_cancelled()
        heeded.append("never")

    running = asyncio.create_task(swallow())
    await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait({running})
    assert running.cancelled()
    assert heeded == [True]


async def test_a_time_out_is_no_cancellation():
    """What `asyncio.timeout` interrupts goes on afterwards."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.001):
            await asyncio.Event().wait()
    assert not is_cancelled()
    raise_if_cancelled()
