"""One timer for all that wait."""

from __future__ import annotations

import asyncio

import pytest

from deployments.services.gateway.shared_timeout import SharedTimeout


async def never() -> None:
    await asyncio.Event().wait()


async def test_each_waits_its_own_time():
    """Whoever comes later is ended later, and whoever is done in time not at all."""
    shared_timeout = SharedTimeout(0.2)
    ended: list[str] = []

    async def wait(name: str, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        with pytest.raises(TimeoutError):
            await shared_timeout.wait_for(never())
        ended.append(name)

    async def quick() -> str:
        await asyncio.sleep(0)
        return "done"

    waiting = asyncio.gather(wait("second", 0.1), wait("first", 0))
    assert await shared_timeout.wait_for(quick()) == "done"
    await waiting
    assert ended == ["first", "second"]


async def test_a_cancelled_task_stays_cancelled():
    """Who is cancelled by somebody else is not told that it took too long."""
    shared_timeout = SharedTimeout(30)
    task = asyncio.create_task(shared_timeout.wait_for(never()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_the_task_goes_on_after_its_timeout():
    """Afterwards the task can wait again."""
    shared_timeout = SharedTimeout(0.01)
    for _ in range(2):
        with pytest.raises(TimeoutError):
            await shared_timeout.wait_for(never())
    await asyncio.sleep(0.02)
