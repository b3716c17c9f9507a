"""The writer starts, stores and closes in a limited time, also when the database says nothing."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import psutil
import pytest
from sqlalchemy import Engine
from sqlalchemy.engine import make_url

from blocks.errors import UnreachableError, UpstreamBusyError
from sandbox.systems.fault_proxy import FaultProxy
from tasks.core.intake.inbox.writer import InboxWriter
from tasks.core.state.database import open_database

IN_TIME_S = 60
"""Nothing here takes this long unless it hangs."""

pytestmark = pytest.mark.parametrize("state_database", ["postgresql"], indirect=True)


@pytest.fixture
def line(state_database: Engine, fault_proxy: Callable[[int], FaultProxy]) -> FaultProxy:
    """What stands between the writer and PostgreSQL, and can fall silent."""
    return fault_proxy(state_database.url.port or 5432)


@pytest.fixture
def through_the_line(state_database: Engine, line: FaultProxy) -> Iterator[Engine]:
    engine = open_database(address(state_database, line))
    yield engine
    engine.dispose()


def address(state_database: Engine, line: FaultProxy) -> str:
    url = make_url(state_database.url.render_as_string(hide_password=False))
    return url.set(host=line.host, port=line.port).render_as_string(hide_password=False)


@pytest.fixture(params=[False, True], ids=["thread", "process"])
def in_own_process(request: pytest.FixtureRequest) -> bool:
    return request.param


@pytest.fixture
def unseen() -> Iterator[list[str]]:
    """What went wrong where nobody waits for it."""
    wrong: list[str] = []
    yield wrong
    assert wrong == []


async def ended(task: asyncio.Task) -> asyncio.Task:
    done, _ = await asyncio.wait({task}, timeout=IN_TIME_S)
    assert done, f"{task} hangs"
    return task


def listen_to_the_loop(unseen: list[str]) -> None:
    asyncio.get_running_loop().set_exception_handler(
        lambda _loop, context: unseen.append(str(context))
    )


async def test_closing_gives_up_what_a_silent_database_does_not_answer(
    through_the_line, line, new, in_own_process
):
    """Whoever waits for it is told, and no process is left."""
    writer = InboxWriter(through_the_line, in_own_process=in_own_process)
    await writer.start()
    process = writer._process and psutil.Process(writer._process.pid)
    line.swallow = True
    call = asyncio.create_task(writer.store([new("a")]))
    await asyncio.sleep(0)
    await ended(asyncio.create_task(writer.close(timeout_s=0.2)))
    with pytest.raises(UnreachableError):
        await call
    with pytest.raises(UpstreamBusyError):
        await writer.store([new("b")])
    assert process is None or not process.is_running()


async def test_a_database_that_is_silent_at_the_start_does_not_answer(
    through_the_line, line, in_own_process
):
    """Starting says so after a while, leaves no process, and closing is done at once."""
    writer = InboxWriter(through_the_line, in_own_process=in_own_process, start_timeout_s=0.5)
    line.swallow = True
    with pytest.raises(UnreachableError, match="does not answer"):
        await asyncio.wait_for(writer.start(), IN_TIME_S)
    await ended(asyncio.create_task(writer.close()))
    assert writer._process is None or writer._process.returncode is not None


async def test_a_start_that_is_cancelled_ends(through_the_line, line, in_own_process, unseen):
    """Wherever it is, it leaves nothing behind, and nothing goes wrong unseen."""
    listen_to_the_loop(unseen)
    line.swallow = True
    for seconds in (0.0, 0.01, 0.3, 1.0):
        writer = InboxWriter(through_the_line, in_own_process=in_own_process)
        starting = asyncio.create_task(writer.start())
        await asyncio.sleep(seconds)
        starting.cancel()
        assert (await ended(starting)).cancelled()
        await ended(asyncio.create_task(writer.close()))
        assert writer._process is None or writer._process.returncode is not None
    gc.collect()  # what nobody asked for is told when it goes


async def test_closing_and_storing_that_are_cancelled_end(
    through_the_line, line, new, in_own_process, unseen
):
    """Neither waits for the database; no process is left, and nothing goes wrong unseen."""
    listen_to_the_loop(unseen)
    writer = InboxWriter(through_the_line, in_own_process=in_own_process)
    await writer.start()
    process = writer._process and psutil.Process(writer._process.pid)
    line.swallow = True
    calls = [asyncio.create_task(writer.store([new(str(i))])) for i in range(2)]
    await asyncio.sleep(0.1)
    calls[0].cancel()
    assert (await ended(calls[0])).cancelled()
    closing = asyncio.create_task(writer.close())
    await asyncio.sleep(0.1)
    closing.cancel()
    assert (await ended(closing)).cancelled()
    assert isinstance((await ended(calls[1])).exception(), UnreachableError)
    if process is not None:
        await asyncio.to_thread(process.wait, IN_TIME_S)
    gc.collect()


async def test_a_start_anew_that_is_silent_can_be_closed(through_the_line, line, new):
    """The process was lost, and the database it comes back to says nothing."""
    writer = InboxWriter(through_the_line, in_own_process=True)
    await writer.start()
    line.swallow = True
    lost = writer._process
    lost.kill()
    while writer._process is lost:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.005)
    await ended(asyncio.create_task(writer.close()))
    assert writer._process.returncode is not None


def test_a_killed_gateway_takes_a_writer_along_that_waits_for_a_silent_database(
    state_database: Engine, line: FaultProxy
):
    """The process does not wait for the database when nobody waits for the process."""
    code = (
        "import asyncio\n"
        "from datetime import UTC, datetime\n"
        "from tasks.core.intake.inbox.new_delivery import NewDelivery\n"
        "from tasks.core.intake.inbox.writer import InboxWriter\n"
        "from tasks.core.state.database import open_database\n"
        "async def main():\n"
        "    writer = InboxWriter(open_database(), in_own_process=True)\n"
        "    await writer.start()\n"
        "    print(writer._process.pid, flush=True)\n"
        "    await asyncio.to_thread(input)\n"
        "    asyncio.create_task(writer.store([NewDelivery('orders', '/h', 'e', 'a', None,\n"
        "        b'[]', b'{}', None, 'text/plain', datetime.now(UTC))]))\n"
        "    await asyncio.sleep(0.5)\n"
        "    print('sent', flush=True)\n"
        "    await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"INTEGRATIONS_DATABASE_URL": address(state_database, line)},
    ) as gateway:
        process = psutil.Process(int(gateway.stdout.readline()))
        line.swallow = True
        gateway.stdin.write("go\n")
        gateway.stdin.flush()
        assert gateway.stdout.readline() == "sent\n"
        gateway.send_signal(signal.SIGKILL)
    process.wait(IN_TIME_S)
