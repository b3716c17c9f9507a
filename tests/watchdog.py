"""Ends a run in which anything hangs (a test, its set-up, collection, the exit), and says where.

A limit that interrupts the main thread is not enough: asynchronous code may swallow it, and a
library's code in C never sees it. So a thread of its own watches, and ends the whole process; the
other worker processes of the run carry on, and the test that hung counts as failed.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import TextIO

import psutil
import pytest

_LIMIT_S = 600.0
_LAST_WORDS_S = 10.0


class Watchdog:
    """Ends this process when what it does takes too long.

    Args:
        limit_s: For whatever is watched.
        stderr: Where it says so; a file of the system's, since it is written to in C.
        has_workers: The children are the run's worker processes.
    """

    def __init__(self, limit_s: float, stderr: TextIO, *, has_workers: bool) -> None:
        self._limit_s = limit_s
        self._stderr = stderr
        self._has_workers = has_workers
        self._changed = threading.Condition()
        self._what = ""
        self._since_s: float | None = None
        threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    def watch(self, what: str) -> None:
        """Begin the time anew, for something else."""
        with self._changed:
            self._what, self._since_s = what, time.monotonic()
            self._changed.notify()

    def rest(self) -> None:
        """Watch nothing: this process waits for work."""
        with self._changed:
            self._since_s = None

    def _run(self) -> None:
        with self._changed:
            while True:
                if self._since_s is None:
                    self._changed.wait()
                    continue
                left_s = self._since_s + self._limit_s - time.monotonic()
                if left_s <= 0:
                    self._end()
                self._changed.wait(left_s)

    def _end(self) -> None:
        print(
            f"\n\nThis hangs, more than {self._limit_s:g} s by now: {self._what}\n",
            file=self._stderr,
            flush=True,
        )
        faulthandler.dump_traceback(self._stderr, all_threads=True)
        children = psutil.Process().children(recursive=True)
        if self._has_workers:
            workers = psutil.Process().children()
            for worker in workers:  # pytest has them tell their stacks, even if C code hangs
                worker.send_signal(signal.SIGABRT)
            psutil.wait_procs(workers, timeout=_LAST_WORDS_S)
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        os._exit(1)


_WATCHDOG = pytest.StashKey[Watchdog]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini("hang_limit_s", "Seconds that a step of a test may take.", default=str(_LIMIT_S))


def pytest_configure(config: pytest.Config) -> None:
    assert sys.__stderr__ is not None
    stderr = os.fdopen(os.dup(sys.__stderr__.fileno()), "w")
    limit_s = float(config.getini("hang_limit_s"))
    has_workers = config.getoption("dist", "no") != "no" and not hasattr(config, "workerinput")
    if has_workers:
        limit_s *= 2  # they say better what hangs
    config.stash[_WATCHDOG] = dog = Watchdog(limit_s, stderr, has_workers=has_workers)
    dog.watch("the start of the run")
    if has_workers:
        config.pluginmanager.register(_Controller(dog))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection(session: pytest.Session) -> Iterator[None]:
    dog = session.config.stash[_WATCHDOG]
    dog.watch("the collection of the tests")
    yield
    dog.rest()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    yield from _watched(item, "set-up")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    yield from _watched(item, "call")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    yield from _watched(item, "teardown")


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    # Threads that nobody ends keep the interpreter from its exit.
    config.stash[_WATCHDOG].watch("the end of the run")


class _Controller:
    """Watches that the worker processes go on telling how their tests do."""

    def __init__(self, dog: Watchdog) -> None:
        self._dog = dog

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._dog.watch(f"worker processes that tell nothing more since {report.nodeid}")


def _watched(item: pytest.Item, step: str) -> Iterator[None]:
    dog = item.config.stash[_WATCHDOG]
    dog.watch(f"{item.nodeid} ({step})")
    try:
        return (yield)
    finally:
        dog.rest()
