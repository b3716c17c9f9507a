"""The demo's processes end with it, whatever they do when they are asked to."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from sandbox.demo.supervisor import ProcessEndedError, Supervisor

STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("helper", helper.pid)
time.sleep(600)
"""
# ends, in turn, once the one that was started before it has been asked to
WAITS_FOR_ANOTHER = """
import pathlib, signal, sys, time
def end(*_):
    while not pathlib.Path(sys.argv[1]).exists(): time.sleep(0.01)
    print("ended by itself")
    sys.exit()
signal.signal(signal.SIGTERM, end)
print("there")
time.sleep(600)
"""
TELLS_ANOTHER = """
import pathlib, signal, sys, time
def end(*_):
    pathlib.Path(sys.argv[1]).touch()
    print("ended by itself")
    sys.exit()
signal.signal(signal.SIGTERM, end)
print("there")
time.sleep(600)
"""


@pytest.fixture
def lines() -> dict[str, list[str]]:
    """What each process has said."""
    return {}


@pytest.fixture
def supervisor(
    request: pytest.FixtureRequest, tmp_path: Path, lines: dict[str, list[str]]
) -> Supervisor:
    """One that gives its processes a minute to end, or what the test says."""

    def show(name: str, line: str) -> None:
        lines.setdefault(name, []).append(line)

    grace_s = getattr(request, "param", 60)
    return Supervisor(tmp_path / "logs", show=show, out=io.StringIO(), turn_s=0.2, grace_s=grace_s)


@pytest.fixture
def start(supervisor: Supervisor, lines: dict[str, list[str]]) -> Callable[..., psutil.Process]:
    """Start a Python program and wait until it has said something."""

    def started(name: str, program: str, *arguments: str) -> psutil.Process:
        command = [sys.executable, "-u", "-c", program, *arguments]
        supervisor.start(name, command, {})
        supervisor.wait_until(lambda: name in lines, what=name, timeout_s=60)
        return psutil.Process(supervisor._running[-1].process.pid)

    return started


@pytest.mark.parametrize("supervisor", [8], indirect=True)
def test_a_process_that_ignores_the_signal_is_killed(supervisor, start, lines):
    """With what it has started; the others end by themselves."""
    first = start("first", TELLS_ANOTHER, "/dev/null")
    stubborn = start("stubborn", STUBBORN)
    helper = psutil.Process(int(lines["stubborn"][0].split()[1]))
    supervisor.stop()
    assert not any(each.is_running() for each in (first, stubborn))
    assert psutil.wait_procs([helper], timeout=60)[1] == []
    assert lines["first"] == ["there", "ended by itself"]


def test_one_that_takes_its_time_does_not_keep_the_others_from_ending(
    supervisor, start, lines, tmp_path
):
    """The next is asked to end after a while, and both have the rest of the time."""
    told = str(tmp_path / "told")
    start("first", TELLS_ANOTHER, told)
    start("second", WAITS_FOR_ANOTHER, told)
    supervisor.stop()
    assert lines == {name: ["there", "ended by itself"] for name in ("first", "second")}


def test_a_process_that_ended_is_told_with_its_last_words(supervisor, start):
    """And stopping is possible all the same."""
    start("first", "print('no database')").wait(60)
    with pytest.raises(ProcessEndedError, match=r"(?s)first ended with status 0.*no database"):
        supervisor.check()
    supervisor.stop()
