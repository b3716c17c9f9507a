"""Deliveries as task runs on a real Prefect server: retries, time-outs and bugs."""

from __future__ import annotations

import asyncio
import threading

import pytest
from prefect import flow, get_run_logger

from blocks.errors import UpstreamBusyError
from tasks.core.intake.inbox.consumer import ConsumerSettings
from tasks.core.intake.inbox.delivery import done
from tasks.deliveries import handle_deliveries

# Prefect's own clients leave sockets to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

BUSY = {"system": "own app", "operation": "adjust"}


def consume(handle, **settings):
    """A flow that handles the deliveries of "orders"."""
    chosen = ConsumerSettings(**({"idle_timeout_s": 0, "retry_delays_s": [0.01]} | settings))

    @flow(name="orders")
    async def orders():
        return await handle_deliveries("orders", handle, settings=chosen)

    return orders


def test_plain_functions_run_side_by_side_in_threads(runs, inbox):
    """Plain functions do not hold each other up, and their log lines reach the task run."""
    both = threading.Barrier(2, timeout=10)

    def handle(_delivery):
        get_run_logger().info("side by side")
        both.wait()
        return done("met")

    ids = [inbox.deliver("orders", {}, event="created") for _ in range(2)]
    assert runs.start(consume(handle)).message == "2 done"
    assert set(runs.tasks()) == {f"created {id_}" for id_ in ids}
    assert [inbox.reason(id_) for id_ in ids] == ["met", "met"]


def test_task_run_tells_each_attempt(runs, inbox):
    """The history of a delivery's task run is its attempts, waits and outcome, nothing else."""
    calls = []

    async def handle(delivery):
        calls.append(delivery.id)
        if calls == [busy]:
            raise UpstreamBusyError("come back", **BUSY)

    busy = inbox.deliver("orders", {}, event="created", ordering_key="first")
    good = inbox.deliver("orders", {}, event="created", ordering_key="first")
    assert not runs.start(consume(handle)).is_failed()
    assert runs.histories() == {
        f"created {busy}": ["Running", "AwaitingRetry", "Retrying", "Completed"],
        f"created {good}": ["Running", "Completed"],
    }


def test_bug_in_a_handler_dead_letters_its_delivery_only(runs, inbox, caplog):
    """A bug is told with its traceback and stops no other delivery."""

    async def handle(delivery):
        if delivery.json()["bad"]:
            raise KeyError("secret value")

    bad = inbox.deliver("orders", {"bad": True}, event="created")
    good = inbox.deliver("orders", {"bad": False}, event="created")
    state = runs.start(consume(handle))
    assert state.is_failed()
    assert inbox.statuses() == {bad: "dead_letter", good: "done"}
    assert inbox.reason(bad) == "a bug in the handler (KeyError): mend it, then replay"
    assert "secret value" not in state.message
    [record] = [record for record in caplog.records if record.exc_info]
    assert record.getMessage() == "A bug in the handler; the delivery is dead-lettered"


def test_time_out(runs, inbox):
    """A delivery that takes too long is given up and tried again later."""

    async def handle(_delivery):
        await asyncio.Event().wait()

    late = inbox.deliver("orders", {}, event="created")
    state = runs.start(consume(handle, handle_timeout_s=0.05))
    assert state.is_failed()
    assert inbox.reason(late) == f"orders: handle {late!r}: not done within 0.05 s"
    assert inbox.statuses() == {late: "failed"}


def test_long_waits_are_left_to_the_inbox(runs, inbox):
    """When the other side asks for minutes no worker is held for it."""
    calls = []

    async def handle(delivery):
        calls.append(delivery.attempt)
        raise UpstreamBusyError("come back later", retry_after_s=300, **BUSY)

    inbox.deliver("orders", {}, event="created")
    assert runs.start(consume(handle)).is_failed()
    assert calls == [1]


def test_last_attempt_dead_letters(runs, inbox):
    """When its attempts are used up a delivery is dead-lettered, with the last reason."""

    async def handle(_delivery):
        raise UpstreamBusyError("still busy", **BUSY)

    dead_lettered = inbox.deliver("orders", {}, event="created")
    assert runs.start(consume(handle, max_attempts=1)).is_failed()
    assert inbox.statuses() == {dead_lettered: "dead_letter"}
    assert inbox.reason(dead_lettered) == "gave up after 1 attempts: own app: adjust: still busy"


def test_database_out_of_reach(runs, monkeypatch, caplog):
    """Without its database a run fails with the reason, not with a traceback."""
    monkeypatch.setenv("INTEGRATIONS_DATABASE_URL", "postgresql://nobody@127.0.0.1:9/none")
    state = runs.start(consume(lambda _delivery: None))
    assert state.is_failed()
    assert "the state database does not answer" in state.message
    assert not any(record.exc_info for record in caplog.records)
