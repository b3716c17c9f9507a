"""Commands beside a running demo reach it, and nothing else does."""

from __future__ import annotations

import fcntl
import stat
import subprocess

import pytest

from deployments.running_demo import use_running_demo, write_environment

SETTINGS = {"PREFECT_API_URL": "http://127.0.0.1:1/api", "A_SECRET": "it's $HOME\n#1"}
DATABASE = "INTEGRATIONS_DATABASE_URL"


@pytest.fixture
def home(tmp_path):
    """The home of a demo that runs."""
    with (tmp_path / "lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        write_environment(tmp_path, SETTINGS)
        yield tmp_path


def test_beside_a_running_demo(home, capsys):
    """Its settings are taken over and that is said; those of another Prefect are left behind."""
    environment = {"PREFECT_API_KEY": "of another", "A_SECRET": "mine", "HOME": "/root"}
    assert use_running_demo(DATABASE, home=home, environment=environment)
    assert environment == {"HOME": "/root", **SETTINGS}
    assert capsys.readouterr().err == f"using the demo that runs here ({home}/environment)\n"


def test_what_was_chosen_counts(home, capsys):
    """Whoever has chosen a database means that one."""
    environment = {DATABASE: "sqlite:////mine.db"}
    assert not use_running_demo(DATABASE, home=home, environment=environment)
    assert environment == {DATABASE: "sqlite:////mine.db"}
    assert capsys.readouterr().err == ""


def test_without_a_demo(tmp_path):
    """A file that a killed demo has left behind means nothing, nor does no file."""
    assert not use_running_demo(home=tmp_path, environment={})
    write_environment(tmp_path, SETTINGS)
    assert not use_running_demo(home=tmp_path, environment={})


def test_the_file_is_its_users_own_and_for_shells(home):
    """Nobody else reads it, whatever was there before; a shell takes each value as it is."""
    path = home / "environment"
    path.chmod(0o644)
    assert write_environment(home, SETTINGS) == path
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    told = subprocess.run(
        ["sh", "-c", f'set -a; . {path}; sh -c \'printf "%s" "$A_SECRET"\''],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert told.stdout == SETTINGS["A_SECRET"]
