"""Runs the demo: `python -m sandbox.demo [--check] [--free-ports]`."""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import json
import os
import re
import shutil
import signal
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO

from deployments.running_demo import HOME, write_environment
from sandbox.demo.places import PROJECT, Places, PortTakenError, choose_places
from sandbox.demo.supervisor import ProcessEndedError, Supervisor

_FIRST_RUN_TAG = "demo"  # of deployments that run once at the start
_EVENTS_TAG = "demo-events"  # of deployments that the sandbox's events start
_OURS = ("prefect", "gateway", "listeners")  # the other ports are the sandbox's
_RUNS_AT_ONCE = 6  # what Prefect's SQLite database bears without "database is locked"
_ROUTINE = re.compile(r" submitting flow run | submitted to infrastructure| - View at ")
_LOUD = re.compile(r"\| (WARNING|ERROR|CRITICAL) +\|")
# Prefect's SQLite takes one writer at a time; a heartbeat that is not noted is followed by others.
_HARMLESS = re.compile(r"Worker channel heartbeat persistence failed")


class _StopRequestedError(Exception):
    pass


def main() -> int:
    """Run the demo until Ctrl-C; with --check until every integration has worked once."""
    parser = argparse.ArgumentParser(prog="make demo", description="Run every integration here.")
    parser.add_argument("--check", action="store_true", help="stop when each has worked once")
    parser.add_argument("--free-ports", action="store_true", help="any ports but the usual")
    parser.add_argument("--home", type=Path, help="where data is kept; .demo by default")
    arguments = parser.parse_args()
    home = (arguments.home or (PROJECT / ".demo-check" if arguments.check else HOME)).resolve()
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("a+") as lock:
        if not _only_one(lock):
            lock.seek(0)
            print(f"the demo runs already: {lock.read().strip() or home}", file=sys.stderr)
            return 1
        if arguments.check:
            _forget_earlier_checks(home)
        try:
            places = choose_places(home, free_ports=arguments.free_ports or arguments.check)
        except PortTakenError as exc:
            print(exc, file=sys.stderr)
            return 1
        lock.truncate(0)
        lock.write(f"process {os.getpid()}, {places.ui_url}\n")
        lock.flush()
        return _run(places, check=arguments.check)


def _run(places: Places, *, check: bool) -> int:
    def request_stop(*_: object) -> None:
        raise _StopRequestedError

    signal.signal(signal.SIGINT, request_stop)
    signal.signal(signal.SIGTERM, request_stop)
    supervisor = Supervisor(places.home / "logs", show=_shown)
    settings = write_environment(places.home, places.settings())
    try:
        _start(supervisor, places)
        if check:
            return _check(supervisor)
        print(_welcome(places), flush=True)
        while True:
            supervisor.check()
            time.sleep(1)
    except _StopRequestedError:
        return 0
    except (ProcessEndedError, TimeoutError) as exc:
        print(f"\n{exc}", file=sys.stderr)
        return 1
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not leave orphans
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("stopping …", flush=True)
        settings.unlink(missing_ok=True)
        supervisor.stop()


def _start(supervisor: Supervisor, places: Places) -> None:
    environment = places.environment()
    os.environ.clear()
    os.environ.update(environment)  # before Prefect is imported, which reads it once
    python = [sys.executable, "-m"]
    print("starting the Prefect server and the sandbox …", flush=True)
    prefect_port = str(places.ports["prefect"])
    supervisor.start(
        "server",
        [*python, "deployments.prefect_on_sqlite", "--host", "127.0.0.1", "--port", prefect_port],
        environment,
    )
    ports = [f"--{name}-port={port}" for name, port in places.ports.items() if name not in _OURS]
    supervisor.start(
        "sandbox",
        [
            *python,
            "sandbox",
            f"--data={places.home / 'sandbox'}",
            f"--gateway={places.gateway_url}",
            *ports,
        ],
        environment,
    )
    blocks = places.home / "sandbox" / "blocks.yaml"
    blocks.unlink(missing_ok=True)
    supervisor.wait_until(blocks.exists, what="the sandbox", timeout_s=60)
    supervisor.wait_until(
        lambda: _answers(f"{places.api_url}/health"), what="the Prefect server", timeout_s=120
    )
    supervisor.start(
        "gateway",
        [*python, "deployments.gateway", f"--port={places.ports['gateway']}"],
        environment,
    )
    where_streams_are = json.loads((blocks.parent / "listeners.json").read_text())
    supervisor.start(
        "listeners",
        [*python, "deployments.listeners", f"--port={places.ports['listeners']}"],
        environment | where_streams_are,
    )
    print("deploying …", flush=True)
    supervisor.run("deploy", [*python, "deployments.deploy", f"--blocks={blocks}"], environment)
    print("registering the endpoints at the third parties …", flush=True)
    supervisor.run("activate", [*python, "deployments.activate", "--all"], environment)
    from sandbox.demo.runs import clear_up_after_last_time, start_first_runs

    asyncio.run(clear_up_after_last_time())
    supervisor.wait_until(
        lambda: _answers(f"{places.listeners_url}/readyz"), what="the listeners", timeout_s=60
    )
    supervisor.start(
        "worker",
        [*python, "deployments.launcher", "--pool=integrations", f"--limit={_RUNS_AT_ONCE}"],
        environment,
    )
    asyncio.run(start_first_runs(_FIRST_RUN_TAG))


def _check(supervisor: Supervisor) -> int:
    from sandbox.demo.runs import wait_for_work

    worked = asyncio.run(wait_for_work((_FIRST_RUN_TAG, _EVENTS_TAG), timeout_s=240))
    supervisor.check()
    for outcome in worked:
        print(f"{'ok  ' if outcome.good else 'FAIL'} {outcome.deployment}: {outcome.told}")
    return 0 if worked and all(outcome.good for outcome in worked) else 1


def _welcome(places: Places) -> str:
    sandbox = places.home / "sandbox"
    rows = [
        ("Prefect UI", places.ui_url),
        ("own app, to watch the data arrive", f"http://127.0.0.1:{places.ports['own-app']}/"),
        ("webhooks, e.g. /webhooks/github", places.gateway_url),
        ("queues, topics and mail: how they do", f"{places.listeners_url}/sources"),
        ("drop files for SFTP here", str(sandbox / "sftp" / "files" / "incoming")),
        ("drop files for the local folder here", str(sandbox / "local")),
        ("SFTP", f"sftp -P {places.ports['sftp']} partner@127.0.0.1   (password: sandbox)"),
        ("logs", str(places.home / "logs")),
        ("send a webhook, in a second terminal", "make send-sample EVENT=push"),
    ]
    width = max(len(name) for name, _ in rows)
    lines = "\n".join(f"  {name:<{width}}  {address}" for name, address in rows)
    return f"\nThe demo runs. Ctrl-C stops all of it.\n\n{lines}\n"


def _shown(name: str, line: str) -> str | None:
    """What an operator wants to see: what runs do and what goes wrong, not how servers start."""
    if name == "worker" and "|" in line:
        return None if _ROUTINE.search(line) else line
    if name == "sandbox" or (_LOUD.search(line) and not _HARMLESS.search(line)):
        return f"{name}: {line}"
    return None


def _forget_earlier_checks(home: Path) -> None:
    for name in ("prefect", "sandbox", "logs", "state.db", "state.db-wal", "state.db-shm"):
        path = home / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _only_one(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - our own server
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


if __name__ == "__main__":
    sys.exit(main())
