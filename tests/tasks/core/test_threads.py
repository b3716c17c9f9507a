"""Threads work as asyncio's do, except that nobody has to wait for one that hangs."""

from __future__ import annotations

import asyncio
import contextvars
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, wait

import pytest

from tasks.core import threads
from tasks.core.threads import (
    DaemonThreadPoolExecutor,
    check_cancelled,
    first_done,
    in_thread,
    in_thread_of,
    in_thread_without_grace,
    is_cancelled,
    raise_if_cancelled,
    result_of,
)


@pytest.fixture
def hang():
    """What threads wait for until the test is over; the second is set when one began to."""
    over, begun = threading.Event(), threading.Event()

    def hang() -> None:
        begun.set()
        over.wait()

    hang.begun = begun
    hang.over = over
    yield hang
    over.set()


@pytest.fixture
def short_grace(monkeypatch):
    """Cancelled tasks give their threads hardly any time."""
    monkeypatch.setattr(threads, "GRACE_S", 0.05)
    monkeypatch.setattr(threads, "_LEAST_S", 0.01)


async def begun(event):
    while not event.is_set():  # noqa: ASYNC110 - another thread sets it
        await asyncio.sleep(0.001)


async def test_results_and_errors_come_back():
    """What the function returns or raises is what the caller gets; it sees the caller's context."""
    variable = contextvars.ContextVar("variable")
    variable.set("of the caller")
    assert await in_thread(variable.get) == "of the caller"
    assert await in_thread(int, "ff", base=16) == 255
    with pytest.raises(ZeroDivisionError):
        await in_thread(lambda: 1 / 0)


async def test_many_at_once_each_have_a_thread():
    """As many calls as a run may have handlers meet one another: none waits for its turn."""
    meeting = threading.Barrier(200, timeout=30)
    await asyncio.gather(*(in_thread(meeting.wait) for _ in range(200)))


def test_threads_end_with_their_loop():
    """When a loop ends, its threads do, and the next loop has its own."""
    names = []
    for _ in range(2):
        asyncio.run(in_thread(lambda: names.append(threading.current_thread())))
    for thread in names:
        thread.join(30)
        assert not thread.is_alive()
    assert names[0] is not names[1]


@pytest.mark.parametrize("wait_for_it", [lambda: threads.sleep(600), check_cancelled])
async def test_a_function_whose_caller_is_cancelled_learns_it(wait_for_it):
    """It cleans up before the caller ends."""
    told = []
    started = threading.Event()

    def work():
        started.set()
        try:
            while True:
                wait_for_it()
        finally:
            told.append("cleaned up")

    working = asyncio.create_task(in_thread(work))
    await begun(started)
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    assert told == ["cleaned up"]


async def test_what_is_done_in_time_is_waited_for(hang):
    """A short call that does not listen has ended when its cancelled caller has."""
    done = []

    def work():
        hang()
        done.append("stored")

    working = asyncio.create_task(in_thread(work))
    await begun(hang.begun)
    for _ in range(3):  # also when it is cancelled more than once
        working.cancel()
        await asyncio.sleep(0)
    hang.over.set()
    with pytest.raises(asyncio.CancelledError):
        await working
    assert done == ["stored"]


async def test_a_thread_that_hangs_is_left_behind(hang, short_grace):
    """The cancelled caller ends all the same."""
    working = asyncio.create_task(in_thread(hang))
    await begun(hang.begun)
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    assert not hang.over.is_set()


async def test_clean_up_uses_threads_too(hang, short_grace):
    """In a task that is cancelled, threads work on; one that hangs then is left behind as well."""
    cleaned = []

    async def work():
        try:
            await in_thread(hang)
        finally:
            try:
                await in_thread(hang)
            finally:
                await in_thread(cleaned.append, "last")

    working = asyncio.create_task(work())
    await begun(hang.begun)
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    assert cleaned == ["last"]


@pytest.mark.parametrize(
    "end", [result_of, lambda _: check_cancelled(), lambda _: threads.sleep(600)]
)
def test_a_wait_for_a_further_thread_ends(hang, cancelling, end):
    """A thread whose caller is cancelled waits for no thread of its own, except to clean up."""
    cleaned = []

    def work(cancel):
        try:
            with DaemonThreadPoolExecutor(1, "further") as pool:
                waiting = pool.submit(hang)
                cancel()
                end(waiting)
        finally:
            with DaemonThreadPoolExecutor(1, "cleaning up") as pool:
                cleaned.append(result_of(pool.submit(answered_late)))

    def answered_late():
        time.sleep(0.3)
        return "in the end"

    cancelling(work)
    assert cleaned == ["in the end"]
    assert not hang.over.is_set()


async def test_results_of_further_threads_come_back():
    """The first that is done, and what it returned or raised, even a time-out."""

    def fail():
        raise TimeoutError("its own")

    def work():
        with DaemonThreadPoolExecutor(2, "further") as pool:
            never = Future()
            good, bad = pool.submit(int, "7"), pool.submit(fail)
            assert first_done({good, never}) == {good}
            with pytest.raises(TimeoutError, match="its own"):
                result_of(bad)
            return result_of(good)

    assert await in_thread(work) == 7
    assert work() == 7


async def test_a_task_that_goes_on_has_the_whole_time_again(hang, short_grace, monkeypatch):
    """Time that a time-out has used up is not missing when the task itself is cancelled."""
    going_on, over = threading.Event(), threading.Event()
    ended = []

    def second():
        going_on.set()
        over.wait()
        ended.append("in time")

    async def work():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await in_thread(hang)
        monkeypatch.setattr(threads, "GRACE_S", 60)
        await in_thread(second)

    working = asyncio.create_task(work())
    await begun(going_on)
    working.cancel()
    await asyncio.sleep(0.1)  # longer than what is left of the first time
    over.set()
    with pytest.raises(asyncio.CancelledError):
        await working
    assert ended == ["in time"]


async def test_what_has_not_begun_is_not_done(hang):
    """A cancelled call that waits for its turn is dropped."""
    pool = DaemonThreadPoolExecutor(1, "one")
    done = []
    first = pool.submit(hang)
    second = asyncio.create_task(in_thread_of(pool, done.append, "second"))
    await begun(hang.begun)
    await asyncio.sleep(0)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    hang.over.set()
    first.result(30)
    pool.shutdown()
    assert done == []


def test_the_pool_works_as_the_standard_one_does():
    """All calls are made, no more than so many at once, and shutting down waits for them."""
    at_once, most, lock = 0, 0, threading.Lock()

    def call(number):
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        threads.sleep(0.001)
        with lock:
            at_once -= 1
        return number

    with DaemonThreadPoolExecutor(4, "four") as pool:
        calls = [pool.submit(call, number) for number in range(100)]
    assert [each.result(0) for each in calls] == list(range(100))
    assert 1 < most <= 4
    with pytest.raises(RuntimeError):
        pool.submit(call, 0)


def test_what_waits_is_cancelled_by_the_shutdown(hang):
    """Shutting down with `cancel_futures` lets what is under way end, and nothing else begin."""
    pool = DaemonThreadPoolExecutor(1, "one")
    first, others = pool.submit(hang), [pool.submit(hang) for _ in range(3)]
    hang.begun.wait(30)
    pool.shutdown(wait=False, cancel_futures=True)
    assert all(each.cancelled() for each in others)
    hang.over.set()
    assert wait([first], 30).done


async def test_a_cancelled_caller_does_not_wait_for_the_thread():
    """It goes on at once, and what the thread gives later harms nobody."""
    release = threading.Event()
    waiting = asyncio.create_task(in_thread_without_grace(release.wait))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait({waiting})
    assert waiting.cancelled()
    assert not release.is_set()
    release.set()


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


HANGING = """
import asyncio, socket, sys
from tasks.core import threads

threads.GRACE_S = 0.1

async def main():
    near, far = socket.socketpair()
    for pool in range(3):
        threads.DaemonThreadPoolExecutor(1, "nested").submit(near.recv, 1)
    calls = (threads.in_thread, threads.in_thread_without_grace)
    waiting = [asyncio.create_task(call(near.recv, 1)) for call in calls for _ in range(2)]
    await asyncio.sleep(0.1)
    for each in waiting[::2]:  # the others are abandoned to the end of the loop
        each.cancel()
    await asyncio.wait(waiting[::2])
    print("cancelled", all(each.cancelled() for each in waiting[::2]))

asyncio.run(main())
"""


def test_a_process_ends_whatever_its_threads_wait_for():
    """Neither the end of the loop nor the exit of Python waits for a thread left behind."""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", HANGING],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert done.stdout == "cancelled True\n"
    assert "Traceback" not in done.stderr
