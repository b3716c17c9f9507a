"""Flow runs of a real server start from the launcher and end as with the stock worker."""

from __future__ import annotations

import os
import signal

import psutil
import pytest
from prefect.client.orchestration import PrefectClient
from prefect.workers.process import ProcessJobConfiguration

from deployments.services.launcher.protocol import CLIENT_COMMAND


@pytest.fixture(scope="session")
def orders(running):
    """The deployment of the flow."""
    return running.deploy("orders", job_variables={"env": {"ONLY_HERE": "yes"}})


def test_a_run_is_a_fork_of_the_parent(running, orders):
    """The pool's runs fork from the parent, with their own environment, and their logs arrive."""
    parent = running.part("parent").pid
    run = running.start_run(orders, end="assert os.environ['ONLY_HERE'] == 'yes'")
    running.wait_for_state(run, "Completed")
    running.wait(lambda: f"price 1, parent {parent}" in running.logs(run))
    assert "Beginning flow run" in running.said()
    assert "only if asked for" not in running.said()


def test_settings_of_a_deployment_count(running):
    """Prefect's settings among a deployment's job variables hold for its runs."""
    debugged = running.deploy("debugged", job_variables={"env": {"PREFECT_LOGGING_LEVEL": "DEBUG"}})
    run = running.start_run(debugged)
    running.wait_for_state(run, "Completed")
    running.wait(lambda: "only if asked for" in running.logs(run))


def test_cancelling_runs_the_hooks(running, orders):
    """Cancelling a run ends its process and runs its hooks, as with the stock worker."""
    run = running.start_run(orders, wait=True)
    pid = running.wait_for_pid(run)
    running.post(f"/flow_runs/{run['id']}/set_state", state={"type": "CANCELLING"})
    running.wait_for_state(run, "Cancelled")
    running.wait(lambda: not psutil.pid_exists(pid))
    running.wait((running.folder / f"{run['name']}-Cancelling").exists)


def test_a_killed_run_has_crashed(running, orders):
    """A run whose process is killed ends as Crashed, with the signal and the crash hooks."""
    run = running.start_run(orders, end="os.kill(os.getpid(), 9)")
    state = running.wait_for_state(run, "Crashed")["state"]
    assert "status code: -9" in state["message"]
    running.wait((running.folder / f"{run['name']}-Crashed").exists)


def test_a_run_whose_client_is_killed_has_crashed(running, orders):
    """Killing what the worker has started ends the run, leaves no process, and is a crash."""
    run = running.start_run(orders, wait=True)
    pid = running.wait_for_pid(run)
    (client,) = running.part("worker").children()
    client.kill()
    running.wait_for_state(run, "Crashed")
    running.wait(lambda: not psutil.pid_exists(pid))


def test_a_failed_run_has_failed(running, orders):
    """An exception in the flow ends the run as Failed, not as Crashed."""
    run = running.start_run(orders, end="1 / 0")
    assert "division by zero" in running.wait_for_state(run, "Failed")["state"]["message"]


def test_the_parent_is_started_again(running, orders):
    """Killing the parent harms no run, and there is another one soon."""
    run = running.start_run(orders, wait=True)
    running.wait_for_pid(run)
    killed = running.part("parent")
    killed.kill()
    running.let_go(run)
    running.wait_for_state(run, "Completed")
    running.wait(lambda: running.said().count("ready") > 1)
    assert running.part("parent").pid != killed.pid
    running.wait_for_state(running.start_run(orders), "Completed")


def test_an_edit_is_picked_up(running, orders):
    """The run after an edit of a flow uses the new code."""
    path = running.folder / "shop_flows" / "orders.py"
    path.write_text(path.read_text().replace("PRICE = 1", "PRICE = 23"))
    run = running.start_run(orders)
    running.wait_for_state(run, "Completed")
    running.wait(lambda: "price 23" in running.logs(run))


def test_a_deployment_opts_out(running):
    """With the plain engine as its command a run is a process of the worker's."""
    plain = running.deploy("plain", job_variables={"command": "python -m prefect.engine"})
    run = running.start_run(plain, wait=True)
    pid = running.wait_for_pid(run)
    assert psutil.Process(pid).parent() == running.part("worker")
    running.let_go(run)
    running.wait_for_state(run, "Completed")


@pytest.mark.parametrize(
    ("job_variables", "command"), [({}, CLIENT_COMMAND), ({"command": ""}, None)]
)
async def test_the_pool_s_command_is_a_default(running, job_variables, command):
    """Deployments of the pool need nothing; an empty command is Prefect's own."""
    template = running.get(f"/work_pools/{running.pool}")["base_job_template"]
    async with PrefectClient(running.environment["PREFECT_API_URL"]) as client:
        configuration = await ProcessJobConfiguration.from_template_and_values(
            template, job_variables, client=client
        )
    assert configuration.command == command


def test_one_signal_stops_everything(running, orders):
    """SIGTERM ends the launcher and its processes, the runs included, with exit code 0."""
    run = running.start_run(orders, wait=True)
    pid = running.wait_for_pid(run)
    processes = running.launcher.children(recursive=True)
    assert psutil.Process(pid) in processes
    os.kill(running.launcher.pid, signal.SIGTERM)
    assert running.launcher.wait() == 0
    running.wait(lambda: not any(process.is_running() for process in processes))
