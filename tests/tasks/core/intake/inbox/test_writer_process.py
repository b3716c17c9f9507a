"""The writer's process: as durable as the thread, gone with its gateway, started anew when lost."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator

import psutil
import pytest
from sqlalchemy import Engine, text

from blocks.errors import BadPayloadError, IntegrationError, UnreachableError, UpstreamBusyError
from tasks.core.intake.inbox.new_delivery import NewDelivery, StoredDelivery
from tasks.core.intake.inbox.reply_tables import AWAITED_REQUESTS
from tasks.core.intake.inbox.writer import InboxWriter
from tasks.core.intake.request_reply.requests import request_row


@pytest.fixture
async def writer(state_database: Engine) -> AsyncIterator[InboxWriter]:
    writer = InboxWriter(state_database, in_own_process=True)
    await writer.start()
    yield writer
    await writer.close()


def process_of(writer: InboxWriter) -> psutil.Process:
    assert writer._process is not None
    return psutil.Process(writer._process.pid)


async def stored_again(writer: InboxWriter, delivery: NewDelivery) -> StoredDelivery:
    """What becomes of a delivery once there is a process again."""
    while True:
        try:
            [stored] = await writer.store([delivery])
        except IntegrationError:
            await asyncio.sleep(0.01)
        else:
            return stored


async def test_many_callers(setup, new, writer: InboxWriter):
    """Each caller is answered for its own deliveries, whatever group they went with."""
    results = await asyncio.gather(
        *(writer.store([new(str(i % 50)), new(f"x{i}")]) for i in range(1200))
    )
    assert sum(first.is_new for first, _ in results) == 50
    assert all(second.is_new for _, second in results)
    assert len(setup.statuses()) == 1250


async def test_errors_cross_the_border(setup, new, writer: InboxWriter):
    """What is wrong with one call is said to its caller; the others of its group are stored."""
    naive = new("naive", received_at=setup.clock().replace(tzinfo=None))
    nul, foreign, good = await asyncio.gather(
        writer.store([new("a\0b")]),
        writer.store([naive]),
        writer.store([new("good")]),
        return_exceptions=True,
    )
    assert isinstance(nul, BadPayloadError)
    assert isinstance(foreign, IntegrationError)
    assert "ValueError" in str(foreign)
    assert good[0].is_new
    assert setup.statuses() == {"good": "received"}


async def test_a_row_beside_the_delivery(setup, new, writer: InboxWriter):
    """What is stored with a delivery reaches its table."""
    row = request_row(
        id="r" * 32,
        delivery_id="d" * 32,
        endpoint="e",
        digest="x",
        keep_s=60,
        received_at=setup.clock(),
        callback=None,
        callback_wanted=False,
    )
    await writer.store([new("a", beside=(AWAITED_REQUESTS, row))])
    with setup.engine.begin() as connection:
        taken = "DELETE FROM awaited_requests WHERE delivery_id = :id RETURNING id"
        found = connection.execute(text(taken), {"id": "d" * 32}).scalars()
        assert found.all() == ["r" * 32]


async def test_a_body_larger_than_a_socket_holds(setup, new, writer: InboxWriter):
    """Neither end waits for the other for ever."""
    bodies = [bytes([i]) * 3_000_000 for i in range(8)]
    await asyncio.gather(*(writer.store([new(str(b[0]), body=b)]) for b in bodies))
    leased = setup.inbox.lease("orders", setup.owner, limit=10)
    assert sorted(each.body for each in leased) == bodies


async def test_signals_are_left_to_the_gateway(new, writer: InboxWriter):
    """Ctrl-C reaches the whole process group; what was taken is stored all the same."""
    process_of(writer).send_signal(signal.SIGINT)
    process_of(writer).send_signal(signal.SIGTERM)
    [stored] = await writer.store([new("a")])
    assert stored.is_new


async def test_closing_stores_what_was_taken_and_ends_the_process(setup, new, state_database):
    """Nothing is left behind."""
    writer = InboxWriter(state_database, in_own_process=True)
    await writer.start()
    process = process_of(writer)
    calls = [asyncio.create_task(writer.store([new(str(i))])) for i in range(700)]
    await asyncio.sleep(0)
    await writer.close()
    assert all(each.is_new for [each] in await asyncio.gather(*calls))
    assert not process.is_running()


async def test_a_killed_process_is_started_anew(setup, new, writer: InboxWriter):
    """Callers are told that they must come back; what was acknowledged stays, and it goes on."""
    acknowledged: list[str] = []
    refused: list[Exception] = []
    enough = asyncio.Event()

    async def send(lane: int) -> None:
        for i in range(300):
            try:
                await writer.store([new(f"{lane}-{i}")])
            except UnreachableError as exc:
                refused.append(exc)
                return
            acknowledged.append(f"{lane}-{i}")
            if len(acknowledged) == 100:
                enough.set()

    sending = asyncio.gather(*(send(lane) for lane in range(8)))
    await asyncio.wait_for(enough.wait(), 30)
    process_of(writer).kill()
    await sending
    assert refused
    assert set(acknowledged) <= set(setup.statuses())
    assert (await stored_again(writer, new("afterwards"))).is_new


@pytest.mark.parametrize("state_database", ["sqlite"], indirect=True)
async def test_a_process_that_cannot_be_started_is_tried_again(
    new, writer: InboxWriter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """A machine without processes or memory to spare just now does not end storing for good."""
    monkeypatch.setattr("tasks.core.intake.inbox.writer._RESTART_EVERY_S", 0.02)
    with monkeypatch.context() as no_python:
        no_python.setattr(sys, "executable", "/nowhere/python")
        process_of(writer).kill()
        while caplog.text.count("cannot be started") < 2:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)
        with pytest.raises(IntegrationError):
            await writer.store([new("a")])
    assert (await stored_again(writer, new("a"))).is_new


@pytest.mark.parametrize("state_database", ["sqlite"], indirect=True)
async def test_closing_while_the_process_is_started_anew(new, state_database: Engine):
    """The start is broken off; nothing is left behind, and nothing goes wrong unseen."""
    wrong: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: wrong.append(context))
    writer = InboxWriter(state_database, in_own_process=True)
    await writer.start()
    lost = writer._process
    process_of(writer).kill()
    while writer._process is lost:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.005)
    anew = process_of(writer)
    await asyncio.wait_for(writer.close(), 30)
    assert not anew.is_running()
    with pytest.raises(UpstreamBusyError):
        await writer.store([new("a")])
    gc.collect()  # what nobody asked for is told when it goes
    assert wrong == []


def test_a_killed_gateway_takes_its_writer_along(state_database: Engine):
    """No process is left that holds the database."""
    code = (
        "import asyncio\n"
        "from tasks.core.intake.inbox.writer import InboxWriter\n"
        "from tasks.core.state.database import open_database\n"
        "async def main():\n"
        "    writer = InboxWriter(open_database(), in_own_process=True)\n"
        "    await writer.start()\n"
        "    print(writer._process.pid, flush=True)\n"
        "    await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    url = state_database.url.render_as_string(hide_password=False)
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"INTEGRATIONS_DATABASE_URL": url},
    ) as gateway:
        assert gateway.stdout is not None
        process = psutil.Process(int(gateway.stdout.readline()))
        gateway.kill()
    process.wait(30)
