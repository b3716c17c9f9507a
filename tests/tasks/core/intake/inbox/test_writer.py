"""Storing: durable before it returns, once, all or none."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from blocks.errors import BadPayloadError, IntegrationError, UpstreamBusyError
from tasks.core.intake.inbox.committer import Committer
from tasks.core.intake.inbox.new_delivery import delivery_id
from tasks.core.intake.inbox.operations import DeliveryFilter
from tasks.core.intake.inbox.rows import LeaseOwner
from tasks.core.intake.inbox.store import Inbox
from tasks.core.intake.inbox.writer import InboxWriter
from tasks.core.state.database import open_database


def rows(engine: Engine, table: str) -> int:
    with engine.connect() as connection:
        return connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one()


async def test_new_and_duplicate(setup, new):
    """The first is new; a later one with the same key has the same id and no effect."""
    [first] = await setup.store(new("a"))
    [second] = await setup.store(new("a", body=b"{}"))
    assert first.is_new
    assert (second.id, second.is_new) == (first.id, False)
    [delivery] = setup.inbox.lease("orders", setup.owner, limit=10)
    assert delivery.body == b'{"order": 1}'
    assert rows(setup.engine, "inbox_requests") == 1


async def test_duplicates_within_one_call(setup, new):
    """Of two equal deliveries in one call the first is new."""
    stored = await setup.store(new("a"), new("a"), new("b"))
    assert [each.is_new for each in stored] == [True, False, True]


async def test_same_key_at_another_endpoint(setup, new):
    """A dedup key counts within its endpoint."""
    stored = await setup.store(new("a"), new("a", endpoint="/hooks/other"))
    assert [each.is_new for each in stored] == [True, True]


def test_id_depends_on_where_the_endpoint_ends():
    """Endpoint and key cannot be shifted into each other to forge an id."""
    assert delivery_id("/a", "bc") != delivery_id("/ab", "c")
    assert delivery_id("/a", "b") == delivery_id("/a", "b")


async def test_batch_shares_its_body(setup, new):
    """The events of one request share a stored body, and each gets its own payload."""
    await setup.store(*(new(str(i), body=b"[0,1,2]", payload=b"%d" % i) for i in range(3)))
    assert rows(setup.engine, "inbox_requests") == 1
    deliveries = setup.inbox.lease("orders", setup.owner, limit=10)
    assert [(each.body, each.json()) for each in deliveries] == [
        (b"[0,1,2]", 0),
        (b"[0,1,2]", 1),
        (b"[0,1,2]", 2),
    ]


async def test_batch_that_overlaps_an_earlier_one(setup, new):
    """A re-sent batch with one more event adds just that one, with its own body."""
    await setup.store(new("a", body=b"[0]", payload=b"0"))
    stored = await setup.store(
        new("a", body=b"[0,1]", payload=b"0"), new("b", body=b"[0,1]", payload=b"1")
    )
    assert [each.is_new for each in stored] == [False, True]
    bodies = [each.body for each in setup.inbox.lease("orders", setup.owner, limit=10)]
    assert bodies == [b"[0]", b"[0,1]"]


async def test_concurrent_callers_share_commits(setup, new):
    """Many callers at once are each answered for their own deliveries, duplicates included."""
    writer = InboxWriter(setup.engine)
    await writer.start()
    results = await asyncio.gather(
        *(writer.store([new(str(i % 50)), new(f"x{i}")]) for i in range(100))
    )
    await writer.close()
    assert sum(first.is_new for first, _ in results) == 50
    assert all(second.is_new for _, second in results)
    assert [first.id for first, _ in results] == [
        delivery_id("/hooks/orders", str(i % 50)) for i in range(100)
    ]


async def test_two_writers_race_for_the_same_deliveries(setup, new):
    """Two gateways that get the same deliveries in other orders accept each exactly once."""
    writers = [InboxWriter(setup.engine), InboxWriter(setup.engine)]
    for writer in writers:
        await writer.start()
    keys = [str(i) for i in range(40)]
    results = await asyncio.gather(
        *(writers[0].store([new(key)]) for key in keys),
        *(writers[1].store([new(key)]) for key in reversed(keys)),
    )
    for writer in writers:
        await writer.close()
    assert sum(each.is_new for [each] in results) == 40
    assert rows(setup.engine, "inbox_requests") == 40


async def test_nul_character_is_refused_before_it_meets_the_database(setup, new):
    """A name no database stores is the sender's fault and harms no other caller."""
    with pytest.raises(BadPayloadError, match="dedup_key holds a NUL character"):
        await setup.store(new("a\0b"))
    with pytest.raises(BadPayloadError, match="event holds"):
        await setup.store(new("a", event="\ud800"))


async def test_size_limit(setup, new):
    """A body or a payload above the limit is refused with the limit, and each counts by itself."""
    writer = InboxWriter(setup.engine, max_body_bytes=10)
    await writer.start()
    with pytest.raises(BadPayloadError, match="12 bytes; the limit is 10"):
        await writer.store([new("a")])
    with pytest.raises(BadPayloadError, match="11 bytes; the limit is 10"):
        await writer.store([new("a", body=b"1", payload=b"1" * 11)])
    [stored] = await writer.store([new("a", body=b"1" * 10, payload=b"1" * 10)])
    assert stored.is_new
    await writer.close()


async def test_one_refused_call_does_not_fail_its_group(setup, new):
    """What the database refuses fails alone; calls that shared its transaction go through."""
    writer = InboxWriter(setup.engine)
    await writer.start()
    bad = new("bad", received_at=setup.clock().replace(tzinfo=None))
    good, refused, good_too = await asyncio.gather(
        writer.store([new("a")]),
        writer.store([bad, new("c")]),
        writer.store([new("b")]),
        return_exceptions=True,
    )
    await writer.close()
    assert isinstance(refused, Exception)
    assert good[0].is_new
    assert good_too[0].is_new
    assert setup.statuses() == {"a": "received", "b": "received"}


async def test_too_much_waiting(setup, new):
    """When more waits for the disk than memory should hold, callers are told to come back."""
    writer = InboxWriter(setup.engine, max_waiting_bytes=100)
    await writer.start()
    results = await asyncio.gather(
        *(writer.store([new(str(i))]) for i in range(4)), return_exceptions=True
    )
    assert [isinstance(each, UpstreamBusyError) for each in results] == [False, False, True, True]
    [stored] = await writer.store([new("later")])
    assert stored.is_new
    await writer.close()


async def test_the_events_of_a_batch_count_their_body_once(setup, new):
    """What waits is what is stored: a body once, however many events came in it."""
    writer = InboxWriter(setup.engine, max_waiting_bytes=3000)
    await writer.start()
    body, headers = b"x" * 1000, b"[]"
    batch = [new(str(i), body=body, headers=headers, payload=b"1") for i in range(50)]
    stored, alone, refused = await asyncio.gather(
        writer.store(batch),
        writer.store([new("a", body=body)]),
        writer.store([new("b", body=body)]),
        return_exceptions=True,
    )
    await writer.close()
    assert [each.is_new for each in stored + alone] == [True] * 51
    assert isinstance(refused, UpstreamBusyError)


async def test_a_call_larger_than_all_that_may_wait_is_taken_alone(setup, new):
    """It waits for nothing else to be stored, and is not sent away again and again."""
    writer = InboxWriter(setup.engine, max_waiting_bytes=30)
    await writer.start()
    large = [new(str(i), body=b"%d" % i * 20) for i in range(3)]
    stored, refused = await asyncio.gather(
        writer.store(large), writer.store([new("a")]), return_exceptions=True
    )
    assert [each.is_new for each in stored] == [True] * 3
    assert isinstance(refused, UpstreamBusyError)
    assert (await writer.store([new("a")]))[0].is_new
    await writer.close()


async def test_close_stores_what_was_taken_and_refuses_the_rest(setup, new):
    """Shutting down finishes accepted calls; later ones are told to come back."""
    writer = InboxWriter(setup.engine)
    await writer.start()
    calls = [asyncio.create_task(writer.store([new(str(i))])) for i in range(20)]
    await asyncio.sleep(0)
    await writer.close()
    assert all(each.is_new for [each] in await asyncio.gather(*calls))
    with pytest.raises(UpstreamBusyError, match="shutting down"):
        await writer.store([new("late")])


async def test_cancelled_caller_harms_nobody(setup, new):
    """A caller that goes away leaves its delivery stored and the writer at work."""
    writer = InboxWriter(setup.engine)
    await writer.start()
    gone = asyncio.create_task(writer.store([new("a")]))
    await asyncio.sleep(0)
    gone.cancel()
    [stored] = await writer.store([new("b")])
    await writer.close()
    assert stored.is_new
    assert setup.statuses()["b"] == "received"


@pytest.mark.parametrize("status", ["dead_letter", "ignored"])
@pytest.mark.parametrize("ordering_key", [None, "k"])
async def test_settled_on_arrival(setup, new, status, ordering_key):
    """What the gateway could not read or does not want is kept, not handed out, and replayed."""
    reason = "dead_letter_reason" if status == "dead_letter" else "ignore_reason"
    [first] = await setup.store(new("a", **{reason: "…"}, ordering_key=ordering_key))
    assert setup.statuses() == {"a": status}
    assert setup.inbox.lease("orders", setup.owner, limit=10) == []
    [found] = setup.operations.select(DeliveryFilter(statuses=(status,)))
    assert (found.id, found.reason) == (first.id, "…")
    setup.operations.replay(DeliveryFilter(ids=(first.id,)), dry_run=False)
    [leased] = setup.inbox.lease("orders", setup.owner, limit=10)
    assert leased.id == first.id


async def test_locked_sqlite(tmp_path: Path, new):
    """A SQLite file that stays locked makes the call fail as busy, with nothing stored."""
    path = tmp_path / "locked.db"
    engine = open_database(f"sqlite:///{path}")
    writer = InboxWriter(engine, busy_timeout_s=0.05)
    await writer.start()
    with sqlite3.connect(path, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(UpstreamBusyError, match="SQLITE_BUSY"):
            await writer.store([new("a")])
        other.execute("ROLLBACK")
    other.close()
    [stored] = await writer.store([new("a")])
    assert stored.is_new
    await writer.close()


def test_full_sqlite(tmp_path: Path, new):
    """A full disk makes calls fail as busy, nothing half stored, and later calls succeed."""
    engine = open_database(f"sqlite:///{tmp_path / 'full.db'}")
    committer = Committer(engine, busy_timeout_s=1)
    committer.connect()
    connection = committer._sqlite
    assert connection is not None
    pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 4}")
    [refused] = committer.commit([[new("small"), new("big", body=b"x" * 200_000)]])
    assert isinstance(refused, UpstreamBusyError)
    assert "SQLITE_FULL" in str(refused)
    assert rows(engine, "inbox_deliveries") == rows(engine, "inbox_requests") == 0
    connection.exec_driver_sql("PRAGMA max_page_count = 1000000")
    [[stored]] = committer.commit([[new("big", body=b"x" * 200_000)]])
    assert stored.is_new
    committer.close()


def test_killed_gateway_loses_nothing_it_acknowledged(state_database: Engine):
    """After kill -9 every delivery that `store` returned for is there, whole."""
    code = (
        "import asyncio, sys\n"
        "from datetime import UTC, datetime\n"
        "from tasks.core.intake.inbox.new_delivery import NewDelivery\n"
        "from tasks.core.intake.inbox.writer import InboxWriter\n"
        "from tasks.core.state.database import open_database\n"
        "async def main():\n"
        "    writer = InboxWriter(open_database())\n"
        "    await writer.start()\n"
        "    async def send(lane):\n"
        "        for i in range(100000):\n"
        "            key = f'{lane}-{i}'\n"
        "            await writer.store([NewDelivery('orders', '/h', 'e', key, None, b'[]',\n"
        "                key.encode(), None, 'text/plain', datetime.now(UTC))])\n"
        "            print(key, flush=True)\n"
        "    await asyncio.gather(*(send(lane) for lane in range(8)))\n"
        "asyncio.run(main())\n"
    )
    url = state_database.url.render_as_string(hide_password=False)
    environment = os.environ | {"INTEGRATIONS_DATABASE_URL": url}
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        acknowledged = [process.stdout.readline().strip() for _ in range(200)]
        process.kill()
        acknowledged += [line.strip() for line in process.stdout if line.endswith("\n")]
    inbox = Inbox(state_database)
    stored = set()
    while leased := inbox.lease("orders", LeaseOwner("run"), limit=500):
        stored |= {each.body.decode() for each in leased}
    inbox.close()
    assert set(acknowledged) <= stored


@pytest.mark.parametrize("state_database", ["postgresql"], indirect=True)
async def test_deadlock_between_gateways(setup, new):
    """When PostgreSQL undoes one of two writers that wait for each other, it writes again."""
    writers = [InboxWriter(setup.engine), InboxWriter(setup.engine)]
    for writer in writers:
        await writer.start()
    for round_ in range(2):
        batch = [new(f"{round_}-{i}") for i in range(400)]
        results = await asyncio.gather(writers[0].store(batch), writers[1].store(batch[::-1]))
        assert sum(each.is_new for stored in results for each in stored) == 400
    for writer in writers:
        await writer.close()


async def test_a_writer_that_cannot_start_can_be_closed(tmp_path: Path, new):
    """No database: starting says so, and nothing hangs afterwards."""
    engine = open_database(f"sqlite:///{tmp_path / 'inbox.db'}")
    (tmp_path / "inbox.db").unlink()
    (tmp_path / "inbox.db").mkdir()
    writer = InboxWriter(engine)
    with pytest.raises(IntegrationError):
        await writer.start()
    await writer.close()
    with pytest.raises(UpstreamBusyError):
        await writer.store([new("a")])
