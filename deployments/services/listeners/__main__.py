"""Runs the listeners: `python -m deployments.listeners [--only NAME …] [--port …] [--check]`.

Environment:
    INTEGRATIONS_SOURCES          files and folders with source declarations; else flows/
    INTEGRATIONS_DATABASE_URL     database of the inbox; else a SQLite file in the user's home
    PREFECT_API_URL               server to notify
and the variables that the declarations name.
"""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import uvicorn

from blocks.errors import IntegrationError, MisconfiguredError
from deployments.services.gateway.metrics import Metrics
from deployments.services.gateway.notifier import Notifier, PrefectEvents
from deployments.services.listeners.declarations import (
    DeclaredSource,
    UnusableSource,
    declaration_files,
    read_declarations,
)
from deployments.services.listeners.retrying import retry
from deployments.services.listeners.service import Listeners
from deployments.state_commands import tell_default_database
from tasks.core.intake.inbox.consumer_registry import ConsumerRegistry
from tasks.core.state.database import open_database
from tasks.core.threads import in_thread_without_grace

_LOG = logging.getLogger("deployments.services.listeners")
_STOPS_WITHIN_S = 20.0
_CLOSE_CONNECTIONS_S = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Listen until SIGTERM or SIGINT, then finish received messages within twenty seconds."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    for chatty in ("httpx", "alembic", "aiormq", "aio_pika", "nats", "botocore"):
        logging.getLogger(chatty).setLevel(logging.CRITICAL)
    try:
        declared = read_declarations(declaration_files(), os.environ)
        declared = _chosen(declared, options.only)
        _show(declared)
        if options.check:
            return int(any(isinstance(each, UnusableSource) for each in declared))
        tell_default_database()
        asyncio.run(_serve(declared, options.host, options.port))
    except IntegrationError as exc:
        print(exc, file=sys.stderr)
        return 1
    return 0


async def _serve(declared: Sequence[DeclaredSource | UnusableSource], host: str, port: int) -> None:
    until = asyncio.Event()

    def stop() -> None:
        until.set()
        _leave_at_the_latest()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    engine = await retry(lambda: in_thread_without_grace(open_database), until=until)
    if engine is None:
        return
    prefect = PrefectEvents(os.environ)
    notifier = Notifier(prefect.post, ConsumerRegistry(engine).at_work, Metrics())
    listeners = Listeners(engine, declared, notify=notifier.notify)
    server = _Server(
        uvicorn.Config(
            listeners.web_app(),
            host=host,
            port=port,
            access_log=False,
            log_config=None,
            ws="none",
            timeout_graceful_shutdown=_CLOSE_CONNECTIONS_S,
        )
    )
    serving = asyncio.create_task(server.serve())
    try:
        await listeners.run(until)
    finally:
        server.should_exit = True
        await serving
        await notifier.close()
        await prefect.close()


def _leave_at_the_latest() -> None:
    """End the process in time, even if something hangs: unacknowledged messages come again."""

    def leave() -> None:
        try:
            print(f"not done after {_STOPS_WITHIN_S:g} s; leaving", file=sys.stderr, flush=True)
            faulthandler.dump_traceback(all_threads=True)
        finally:
            os._exit(0)

    timer = threading.Timer(_STOPS_WITHIN_S, leave)
    timer.daemon = True
    timer.start()


class _Server(uvicorn.Server):
    """Leaves signals to us, so that received messages are stored before the process ends."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _chosen(
    declared: list[DeclaredSource | UnusableSource], only: Sequence[str]
) -> list[DeclaredSource | UnusableSource]:
    unknown = set(only) - {each.name for each in declared}
    if unknown:
        raise MisconfiguredError(
            f"no source is called {', '.join(sorted(unknown))}; there are "
            f"{', '.join(sorted(each.name for each in declared))}",
            system="listeners",
            operation="start",
        )
    return [each for each in declared if not only or each.name in only]


def _show(declared: Sequence[DeclaredSource | UnusableSource]) -> None:
    if not declared:
        _LOG.warning("no source is declared; put a sources.yaml beside a flow")
    for each in declared:
        if isinstance(each, UnusableSource):
            _LOG.warning("%s is not listened to: %s", each.name, each.reason)
        else:
            kind = type(each.declaration).__name__.removesuffix("Declaration")
            _LOG.info("%s: %s, for %s", each.name, kind, each.integration)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m deployments.listeners", description="Listens to queues and mailboxes."
    )
    parser.add_argument("--only", nargs="*", default=[], help="names of the sources to listen to")
    parser.add_argument("--host", default="127.0.0.1", help="address for health and metrics")
    parser.add_argument("--port", type=int, default=8090, help="port for them; 0 for any")
    parser.add_argument("--check", action="store_true", help="check the declarations and stop")
    return parser


if __name__ == "__main__":
    sys.exit(main())
