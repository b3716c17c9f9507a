"""Fails each test that leaves a thread, process, socket or event loop of its own behind.

What lives longer on purpose is either started by a fixture of a wider scope or named below.
"""

from __future__ import annotations

import contextlib
import gc
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

_PATIENCE_S = 20.0
_LOOK_EVERY_S = 0.02

# Beginnings of names of threads that stay, and whose they are.
_THREADS_THAT_STAY = {
    "APILogWorkerThread": "Prefect's, for all runs of the process",
    "ConcurrencySlotAcquisition": "Prefect's, for all runs of the process",
    "EventsWorkerThread": "Prefect's, for all runs of the process",
    "GlobalEventLoopThread": "Prefect's, for all runs of the process",
    "RunSyncEventLoopThread": "Prefect's, for all runs of the process",
    "AnyIO worker thread": "idle ones of stand-ins that serve the whole session",
    Path("/proc/self/comm").read_text().strip(): "pools of libraries in C, such as OpenBLAS",
}

_STAYING = "staying thread "
_SOCKET = "socket:"
_LOOP = "loop "
_UNNAMED = "a socket without an address"

Things = dict[str, str]
"""What is there and ends: what it is known by, and how it is told."""


def things() -> Things:
    """All threads, child processes, sockets and event loops of this process."""
    return _threads() | _processes() | _descriptors()


def _threads() -> Things:
    named = {each.native_id: each.name for each in threading.enumerate()}
    found = {}
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # it ended meanwhile
            name = named.get(int(task.name)) or (task / "comm").read_text().strip()
            stays = name.startswith(tuple(_THREADS_THAT_STAY))
            found[f"{_STAYING if stays else 'thread '}{task.name}"] = f"the thread {name!r}"
    return found


def _processes() -> Things:
    found = {}
    for child in psutil.Process().children():  # theirs are their own affair
        with contextlib.suppress(psutil.NoSuchProcess):
            if child.status() != psutil.STATUS_ZOMBIE:
                found[f"process {child.pid}"] = f"the process {' '.join(child.cmdline())[:200]!r}"
    return found


def _descriptors() -> Things:
    found = {}
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the one that reads the folder
            target = str(each.readlink())
            if target.startswith(_SOCKET):
                found[target] = each.name
            elif target == "anon_inode:[eventpoll]":
                found[f"{_LOOP}{each.name}"] = f"the event loop of descriptor {each.name}"
    return found


_BEFORE = pytest.StashKey[Things]()
_STAYS: Things = {}


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> Iterator[None]:
    if fixturedef.scope == "function":
        return (yield)
    before = things()
    result = yield
    _STAYS.update({key: told for key, told in things().items() if key not in before})
    return result


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    item.stash[_BEFORE] = things()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    yield
    left = _left_since(item.stash[_BEFORE])
    until_s = time.monotonic() + _PATIENCE_S
    while left and time.monotonic() < until_s:  # the other end of a connection ends a moment later
        gc.collect()
        time.sleep(_LOOK_EVERY_S)
        left = _left_since(item.stash[_BEFORE])
    if left:
        _STAYS.update(left)
        pytest.fail(f"it left behind {', '.join(sorted(left.values()))}", pytrace=False)


def _left_since(before: Things) -> Things:
    kept = before.keys() | _STAYS.keys()
    left = {key: told for key, told in things().items() if key not in kept}
    staying = {key: left.pop(key) for key in list(left) if key.startswith(_STAYING)}
    if any(key.startswith(_SOCKET) for key in left):
        _tell_sockets(left)
    # a thread that stays has a loop, which has a pair of sockets
    of_theirs = [
        *[key for key in left if key.startswith(_LOOP)][: len(staying)],
        *[key for key, told in left.items() if told == _UNNAMED][: 2 * len(staying)],
    ]
    return {key: told for key, told in left.items() if key not in of_theirs}


def _tell_sockets(left: Things) -> None:
    """Tell whom sockets connect; without those of Prefect's clients to the server of the tests."""
    connections = {str(each.fd): each for each in psutil.Process().net_connections("all")}
    for key, descriptor in list(left.items()):
        if not key.startswith(_SOCKET):
            continue
        found = connections.get(descriptor)
        if found is None or not found.laddr:
            left[key] = _UNNAMED
        elif found.raddr and found.raddr[-1] == _prefect_port():
            del left[key]
        else:
            left[key] = f"the socket from {found.laddr} to {found.raddr or 'nobody'}"


def _prefect_port() -> int | None:
    """Of the server that `prefect_server_of_session` has started."""
    if "prefect.settings" not in sys.modules:
        return None
    from prefect.settings import PREFECT_API_URL

    return urlsplit(PREFECT_API_URL.value() or "").port
