"""Launcher, worker, parent and runs end in the time that is promised, whatever a run does."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import psutil
import pytest

from sandbox.systems.fault_proxy import FaultProxy

IN_TIME_S = 60
"""No stop takes this long unless it hangs."""


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def stubborn(port: int) -> dict[str, str]:
    """Flows that do not end when they are asked to: what they do at their end."""
    return {
        "waits for a silent server": f"import socket\n"
        f"socket.create_connection(('127.0.0.1', {port})).recv(1)",
        "ignores SIGTERM": "import signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "time.sleep(600)",
        "never lets another thread work": "import ctypes\nctypes.PyDLL(None).sleep(600)",
    }


@pytest.fixture
def started(prefect) -> Iterator[Callable]:
    """Starts a launcher of the test's own."""
    launchers = []

    def start(pool: str, **environment: str):
        launchers.append(type(prefect)(prefect.folder, prefect.environment | environment, pool))
        launchers[-1].start_launcher()
        return launchers[-1]

    yield start
    for each in launchers:
        if each.launcher.poll() is None:
            for process in (*each.launcher.children(recursive=True), each.launcher):
                process.kill()
            each.launcher.wait()
        each.api.close()


def stop(launcher) -> None:
    """Send SIGTERM and wait for the end of the launcher, and of all that it has started."""
    processes = launcher.launcher.children(recursive=True)
    launcher.launcher.terminate()
    launcher.launcher.wait(IN_TIME_S)
    launcher.wait(lambda: not any(each.is_running() for each in processes))


def test_a_stop_takes_all_runs_along(started, silent):
    """Whatever they do, and whatever they have started."""
    launcher = started("stopped")
    deployment = launcher.deploy("stubborn")
    runs = [launcher.start_run(deployment, end=end) for end in stubborn(silent).values()]
    plain = launcher.deploy("stubborn plain", job_variables={"command": "python -m prefect.engine"})
    runs += [launcher.start_run(plain, end=end) for end in stubborn(silent).values()]
    pids = [launcher.wait_for_pid(run) for run in runs]
    stop(launcher)
    launcher.wait(lambda: not any(psutil.pid_exists(pid) for pid in pids))


def test_a_stop_does_not_wait_for_prefect(prefect, started, fault_proxy):
    """Nobody waits for a server that says nothing."""
    port = int(prefect.environment["PREFECT_API_URL"].split(":")[2].split("/")[0])
    line: FaultProxy = fault_proxy(port)
    launcher = started("unheard", PREFECT_API_URL=f"http://127.0.0.1:{line.port}/api")
    deployment = launcher.deploy("waiting")
    pid = launcher.wait_for_pid(launcher.start_run(deployment, wait=True))
    line.swallow = True
    stop(launcher)
    launcher.wait(lambda: not psutil.pid_exists(pid))


def test_a_cancelled_run_ends(started, silent):
    """Whatever it does, and however it takes the signal that asks it to end."""
    launcher = started("cancelled")
    deployment = launcher.deploy("stubborn when cancelled")
    runs = [launcher.start_run(deployment, end=end) for end in stubborn(silent).values()]
    pids = [launcher.wait_for_pid(run) for run in runs]
    for run in runs:
        launcher.post(f"/flow_runs/{run['id']}/set_state", state={"type": "CANCELLING"})
    for run in runs:
        launcher.wait_for_state(run, "Cancelled")
    launcher.wait(lambda: not any(psutil.pid_exists(pid) for pid in pids))


def test_a_worker_without_its_launcher_ends(prefect, started, fault_proxy):
    """Nobody else sees to it then, and the server says nothing."""
    port = int(prefect.environment["PREFECT_API_URL"].split(":")[2].split("/")[0])
    line: FaultProxy = fault_proxy(port)
    launcher = started("left", PREFECT_API_URL=f"http://127.0.0.1:{line.port}/api")
    run = launcher.start_run(launcher.deploy("left"), wait=True)
    processes = [psutil.Process(launcher.wait_for_pid(run))]
    processes += launcher.launcher.children(recursive=True)
    line.swallow = True
    launcher.launcher.kill()
    launcher.wait(lambda: not any(each.is_running() for each in processes))
