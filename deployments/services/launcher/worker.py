"""Prefect's own process worker, woken by the server's events between its polls.

The worker is the stock class with its stock loop; the notifier only calls the loop's own method,
so a lost event only means waiting for the next poll.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import copy
import os
import signal
import threading
from typing import Any

import anyio
import httpx
from anyio.streams.memory import MemoryObjectSendStream
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.events import ResourceSpecification
from prefect.events.clients import get_events_subscriber
from prefect.events.filters import EventFilter, EventNameFilter, EventRelatedFilter
from prefect.exceptions import ObjectNotFound
from prefect.logging import get_logger
from prefect.utilities.processutils import setup_signal_handlers_worker
from prefect.workers.process import ProcessWorker

from deployments.services.launcher.prefect_setup import set_defaults
from deployments.services.launcher.protocol import CLIENT_COMMAND, WORKER_STOPS_WITHIN_S
from deployments.state_commands import tell_default_database

# Names of all states of type SCHEDULED.
_WAITING = ["Scheduled", "Late", "AwaitingRetry", "Resuming", "AwaitingConcurrencySlot"]
_RETRY_EVERY_S = 5.0
# After a poll: in a burst many runs notify, and one poll serves them all.
_QUIET_S = 0.2
_STDIN = 0

_log = get_logger("launcher")


def main() -> None:
    """Run until SIGTERM or SIGINT, which have the same effect as on `prefect worker start`."""
    parser = argparse.ArgumentParser(prog="python -m deployments.services.launcher.worker")
    parser.add_argument("--pool", required=True)
    parser.add_argument("--name")
    parser.add_argument("--work-queue", action="append")
    parser.add_argument("--limit", type=int)
    options = parser.parse_args()
    set_defaults()
    tell_default_database()  # the one that the runs will use
    # Prefect stops a worker by SIGINT, which a shell's background jobs ignore.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_run(options))


async def _run(options: argparse.Namespace) -> None:
    setup_signal_handlers_worker(os.getpid(), "the worker", print)
    await offer_fast_starts(options.pool)
    worker = ProcessWorker(
        work_pool_name=options.pool,
        work_queues=options.work_queue,
        name=options.name,
        limit=options.limit,
    )
    async with anyio.create_task_group() as group:
        group.start_soon(_end_with_launcher)
        group.start_soon(_answer_notifications, worker, options.pool)
        await worker.start()
        group.cancel_scope.cancel()


async def _end_with_launcher() -> None:
    await anyio.wait_readable(_STDIN)  # nothing is ever written to it, so it has closed
    # without the launcher, nobody else makes this process end in time
    kill = threading.Timer(WORKER_STOPS_WITHIN_S, os.killpg, (os.getpid(), signal.SIGKILL))
    kill.daemon = True
    kill.start()
    os.kill(os.getpid(), signal.SIGTERM)


async def offer_fast_starts(pool_name: str) -> None:
    """Make the launcher's client the pool's default command, unless it has another one.

    Creates the pool if it is missing. A deployment opts out by its job variable `command`.
    """
    while True:
        try:
            async with get_client() as client:
                return await _set_command(client, pool_name)
        except httpx.TransportError as exc:
            _log.warning("The Prefect server does not answer yet (%s)", type(exc).__name__)
            await anyio.sleep(_RETRY_EVERY_S)


async def _set_command(client: PrefectClient, pool_name: str) -> None:
    try:
        pool = await client.read_work_pool(pool_name)
    except ObjectNotFound:
        template = _with_command(ProcessWorker.get_default_base_job_template())
        await client.create_work_pool(
            WorkPoolCreate(name=pool_name, type="process", base_job_template=template)
        )
        return
    template = pool.base_job_template or ProcessWorker.get_default_base_job_template()
    command = template["variables"]["properties"].get("command", {}).get("default")
    if pool.type == "process" and command is None:
        await client.update_work_pool(
            pool_name, WorkPoolUpdate(base_job_template=_with_command(template))
        )
        _log.info("Runs of work pool %r start by %r from now on", pool_name, CLIENT_COMMAND)
    elif command != CLIENT_COMMAND:
        _log.warning("Work pool %r has another command (%s): no fast starts", pool_name, command)


def _with_command(template: dict[str, Any]) -> dict[str, Any]:
    template = copy.deepcopy(template)
    template["variables"]["properties"]["command"]["default"] = CLIENT_COMMAND
    return template


async def _answer_notifications(worker: ProcessWorker, pool_name: str) -> None:
    # Room for one notification: any number during a poll needs only one more poll.
    notify, notifications = anyio.create_memory_object_stream[None](1)
    async with anyio.create_task_group() as group:
        group.start_soon(_listen, notify, pool_name)
        async for _ in notifications:
            with contextlib.suppress(httpx.HTTPError):  # the next poll retries
                await worker.get_and_submit_flow_runs()
            await anyio.sleep(_QUIET_S)


async def _listen(notify: MemoryObjectSendStream[None], pool_name: str) -> None:
    pool = {"prefect.resource.role": "work-pool", "prefect.resource.name": pool_name}
    waiting = EventFilter(
        event=EventNameFilter(name=[f"prefect.flow-run.{state}" for state in _WAITING]),
        related=EventRelatedFilter(labels=ResourceSpecification(pool)),
    )
    while True:
        try:
            async with get_events_subscriber(filter=waiting) as events:
                async for _ in events:
                    with contextlib.suppress(anyio.WouldBlock):
                        notify.send_nowait(None)
        except Exception as exc:  # noqa: BLE001 - polls go on whatever the notifier suffers
            _log.debug("Notification lost: %r", exc)
        await anyio.sleep(_RETRY_EVERY_S)


if __name__ == "__main__":
    main()
