"""The parent's children are the processes that the clients ask for, and end as such."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import venv

import psutil
import pytest


def wait_until_gone(pids: list[int]) -> None:
    for pid in pids:
        while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)


def wait_until_idle(parent: psutil.Process) -> None:
    while parent.children():
        time.sleep(0.01)


def test_a_child_is_what_its_client_is(bench, tmp_path):
    """A child has its client's environment, working directory, argv and standard streams."""
    bench.start_parent()
    job = bench.start_job(
        "import sys, json\n"
        "print(json.dumps([dict(os.environ), os.getcwd(), sys.argv, sys.path[0], input()]))\n"
        "print('to stderr', file=sys.stderr)",
        cwd=tmp_path,
        env={"ONLY_HERE": "ü=1"},
    )
    out, err = job.communicate("from stdin")
    environment, directory, argv, first_path, line = json.loads(out)
    assert environment["ONLY_HERE"] == "ü=1"
    assert set(environment) == set(bench.environment) | {"ONLY_HERE", "JOB"}
    assert directory == first_path == str(tmp_path)
    assert argv == [str(bench.folder / "job_engine.py")]
    assert (line, err) == ("from stdin", "to stderr\n")


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("pass", 0),
        ("raise SystemExit", 0),
        ("raise SystemExit(3)", 3),
        ("raise SystemExit('why')", 1),
        ("1 / 0", 1),
        ("raise KeyboardInterrupt", -signal.SIGINT),
        ("os._exit(7)", 7),
        ("os.kill(os.getpid(), 9)", -signal.SIGKILL),
        ("os.kill(os.getpid(), 15)", -signal.SIGTERM),
        ("os.kill(os.getpid(), 11)", -signal.SIGSEGV),
    ],
)
def test_a_client_ends_as_its_child_ends(bench, code, expected):
    """The client leaves with the child's exit code, or by the signal that ended the child."""
    bench.start_parent()
    job = bench.start_job(code)
    job.communicate()
    assert job.returncode == expected


def test_the_end_of_a_child_is_python_s(bench):
    """Non-daemon threads are waited for, exit handlers run, and buffered output arrives."""
    bench.start_parent()
    out = bench.run_job(
        "import atexit, threading, time\n"
        "atexit.register(print, 'handler')\n"
        "threading.Thread(target=lambda: (time.sleep(.05), print('thread'))).start()\n"
        "print('main')"
    )
    assert out == "main\nthread\nhandler\n"


def test_a_traceback_reaches_the_worker(bench):
    """What ends a child is told on its standard error."""
    bench.start_parent()
    _, err = bench.start_job("raise LookupError('missing')").communicate()
    assert "LookupError: missing" in err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_signals_reach_the_child(bench, number):
    """A signal to the client is a signal to the child, whose handler decides what follows."""
    bench.start_parent()
    job = bench.start_job(
        "import signal, sys\n"
        f"signal.signal({int(number)}, lambda *_: sys.exit(42))\n"
        "print('waiting', flush=True)\n"
        "signal.pause()"
    )
    job.stdout.readline()
    job.send_signal(number)
    assert job.wait() == 42


def test_no_orphan_when_the_client_is_killed(bench):
    """SIGKILL of the client ends the child and what the child has started."""
    bench.start_parent()
    job = bench.start_job(
        "import subprocess\n"
        "print(os.getpid(), subprocess.Popen(['sleep', '600']).pid, flush=True)\n"
        "import signal; signal.pause()"
    )
    pids = [int(pid) for pid in job.stdout.readline().split()]
    job.kill()
    wait_until_gone(pids)


def test_a_run_survives_the_parent(bench):
    """SIGKILL of the parent harms no run: it goes on, and its exit code arrives."""
    parent = bench.start_parent()
    job = bench.start_job("print('began', flush=True); input(); raise SystemExit(5)")
    job.stdout.readline()
    parent.kill()
    parent.wait()
    job.communicate("go on\n")
    assert job.returncode == 5


def test_no_orphan_when_parent_and_client_are_killed(bench):
    """SIGKILL of the client ends the child even when there is no parent any more."""
    parent = bench.start_parent()
    job = bench.start_job("print(os.getpid(), flush=True); import signal; signal.pause()")
    pid = int(job.stdout.readline())
    parent.kill()
    parent.wait()
    job.kill()
    wait_until_gone([pid])


def test_a_child_killed_without_a_parent_counts_as_killed(bench):
    """A child that dies with nobody left to tell how is reported as killed."""
    parent = bench.start_parent()
    job = bench.start_job("print(os.getpid(), flush=True); import signal; signal.pause()")
    pid = int(job.stdout.readline())
    parent.kill()
    parent.wait()
    os.kill(pid, signal.SIGKILL)
    assert job.wait() == -signal.SIGKILL


def test_a_child_starts_clean(bench):
    """A child has a session, default signal handlers and one thread besides the launcher's."""
    bench.start_parent("numpy")
    out = bench.run_job(
        "import signal, threading\n"
        "print(os.getsid(0) == os.getpid(), signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL,\n"
        "      signal.getsignal(signal.SIGTERM) == signal.SIG_DFL,\n"
        "      [t.name for t in threading.enumerate()])"
    )
    assert out == "True True True ['MainThread', 'launcher']\n"


def test_children_hold_no_descriptor_of_each_other(bench):
    """A child has the three standard streams and its own connection, nothing else."""
    bench.start_parent()
    first = bench.start_job("print('there', flush=True); input()")
    first.stdout.readline()
    out = bench.run_job("print(len(os.listdir('/dev/fd')) - 1)")
    assert out == "4\n"
    first.communicate("\n")


def test_random_state_is_fresh(bench):
    """No two children draw the same numbers, from Python, numpy or the system."""
    bench.start_parent("numpy.random", "random", "uuid")
    draw = (
        "import numpy, random, uuid\n"
        "print(random.random(), numpy.random.random(), uuid.uuid4(), uuid.uuid1())"
    )
    first, second = bench.run_job(draw).split(), bench.run_job(draw).split()
    assert not set(first) & set(second)


def test_nothing_is_left_behind(bench):
    """After many runs the parent has no child, no zombie, and as many open files as before."""
    parent = psutil.Process(bench.start_parent().pid)
    bench.run_job("pass")
    wait_until_idle(parent)
    before = parent.num_fds()
    jobs = [bench.start_job("raise SystemExit(0)") for _ in range(20)]
    for job in jobs:
        job.communicate()
    assert [job.returncode for job in jobs] == [0] * 20
    wait_until_idle(parent)
    assert parent.num_fds() == before


def end_of_input(parent):
    parent.stdin.close()


@pytest.mark.parametrize("told", [end_of_input, subprocess.Popen.terminate])
def test_the_parent_ends_with_the_launcher(bench, told):
    """The end of standard input, or SIGTERM, ends the parent once its last run has ended."""
    parent = bench.start_parent()
    job = bench.start_job("print('began', flush=True); input(); raise SystemExit(5)")
    job.stdout.readline()
    told(parent)
    job.communicate("\n")
    assert job.returncode == 5
    assert parent.wait() == 0


def test_no_run_outlives_its_client_while_the_parent_ends(bench):
    """Not even one that lets no other thread of its process work."""
    parent = bench.start_parent()
    job = bench.start_job(
        "print(os.getpid(), flush=True)\n"
        "import ctypes; ctypes.PyDLL(None).system(b'echo it works; sleep 600')"
    )
    pid = int(job.stdout.readline())
    assert job.stdout.readline() == "it works\n"
    parent.terminate()
    job.kill()
    wait_until_gone([pid])
    assert parent.wait() == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may run as another user")
def test_other_users_are_refused(bench):
    """A process of another user gets no child, even where it can reach the socket."""
    bench.start_parent()
    bench.folder.chmod(0o755)
    bench.socket.chmod(0o777)
    ask = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n"
        "print(s.recv(100))"
    )
    command = ["/usr/bin/env", "python3", "-c", ask, str(bench.socket)]
    asked = subprocess.run(command, user=65534, capture_output=True, text=True, check=False)
    assert asked.stdout == "b''\n", asked.stderr
    assert bench.run_job("print('served')") == "served\n"


def test_changed_code_is_picked_up(bench):
    """After an edit the next run uses the new code; a run under way keeps its own and ends well."""
    bench.write("shop.py", "PRICE = 1\n")
    parent = bench.start_parent("shop")
    under_way = bench.start_job(
        "import shop; print(shop.PRICE, flush=True)\n"
        "input(); print(shop.PRICE); raise SystemExit(4)"
    )
    under_way.stdout.readline()
    bench.write("shop.py", "PRICE = 22\n")
    assert bench.run_job("import shop; print(shop.PRICE)") == "22\n"
    bench.wait_until_said("ready", times=2)
    assert under_way.communicate("\n")[0] == "1\n"
    assert under_way.returncode == 4
    psutil.wait_procs(psutil.Process(parent.pid).children(), timeout=60)
    assert psutil.Process(parent.pid).children() == []


def test_code_broken_by_an_edit_is_the_run_s_trouble(bench):
    """A module that cannot be imported is told and left out; once mended it is loaded again."""
    bench.write("shop.py", "import sys; sys.exit('at import')\n")
    bench.start_parent("shop")
    job = bench.start_job("import shop")
    assert "at import" in job.communicate()[1]
    bench.write("shop.py", "print('imported')\n")
    bench.wait_until_said("ready", times=2)
    assert bench.run_job("import shop") == ""


def test_loaded_modules_are_not_executed_again(bench):
    """A child gets the parent's module, packages and their attributes included."""
    bench.write("store/__init__.py", "")
    bench.write("store/prices.py", "import os\nLOADED_BY = os.getpid()\n")
    parent = bench.start_parent("store.prices")
    out = bench.run_job(
        "import store.prices, inspect\n"
        "print(store.prices.LOADED_BY, inspect.getsource(store.prices) != '',\n"
        "      store.prices.__spec__.origin.endswith('prices.py'))"
    )
    assert out == f"{parent.pid} True True\n"


def test_a_run_may_bring_its_own_copy_of_the_code(bench, tmp_path):
    """Where the import system finds another file than the parent loaded, that file counts."""
    bench.write("store/__init__.py", "")
    bench.write("store/prices.py", "PRICE = 1\n")
    bench.start_parent("store.prices")
    copy = tmp_path / "store"
    copy.mkdir()
    (copy / "__init__.py").write_text("")
    (copy / "prices.py").write_text("PRICE = 2\n")
    show = "import store.prices; print(store.prices.PRICE)"
    assert bench.run_job(show, cwd=tmp_path) == "2\n"
    assert bench.run_job(show) == "1\n"


def test_code_that_is_not_preloaded_runs(bench):
    """A module that the parent has never seen, made after it started, is imported by the run."""
    bench.start_parent()
    bench.write("late.py", "print('late')\n")
    assert bench.run_job("import late") == "late\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("thread", "import threading\nthreading.Thread(target=input, daemon=True).start()\n"),
        ("connection", "import socket\nPAIR = socket.socketpair()\n"),
        ("file", "FILE = open(__file__)\n"),
        ("native", "import _thread, time\n_thread.start_new_thread(time.sleep, (999,))\n"),
    ],
)
def test_what_a_fork_would_break_is_not_preloaded(bench, name, text):
    """A module that leaves a thread, file or connection behind is left to the runs."""
    bench.write("harmless.py", "import os\nLOADED_BY = os.getpid()\n")
    bench.write(f"leaves_{name}.py", text)
    parent = bench.start_parent(f"leaves_{name}", "harmless")
    out = bench.run_job(f"import harmless, leaves_{name}; print(harmless.LOADED_BY)")
    assert out == f"{parent.pid}\n"


def test_the_interpreter_is_the_job_s(bench):
    """A job that sets what Python reads at its start is refused, and says which variable."""
    bench.start_parent()
    job = bench.start_job("", env={"PYTHONHASHSEED": "7"})
    _, err = job.communicate()
    assert "PYTHONHASHSEED differs from the launcher's" in err


def test_a_command_of_another_python_is_refused(bench, tmp_path):
    """A client under another interpreter does not get a child of the launcher's."""
    bench.start_parent()
    venv.create(tmp_path, symlinks=True)
    job = bench.start_job("", python=str(tmp_path / "bin" / "python"))
    assert "the launcher runs another Python" in job.communicate()[1]
