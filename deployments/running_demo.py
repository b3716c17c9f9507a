"""Lets commands in a second terminal reach the demo that runs: its settings are in a file.

They are in `.demo/environment`, for this user only, for as long as the demo runs. A shell takes
them with `set -a; . .demo/environment`.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, MutableMapping
from pathlib import Path

HOME = Path(__file__).parents[1] / ".demo"
_NAME = "environment"


def write_environment(home: Path, settings: Mapping[str, str]) -> Path:
    """Write the demo's settings for `use_running_demo`; returns the file."""
    path = home / _NAME
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:  # noqa: PTH123
        file.writelines(f"{name}={shlex.quote(value)}\n" for name, value in settings.items())
    return path


def use_running_demo(
    *unless: str, home: Path = HOME, environment: MutableMapping[str, str] = os.environ
) -> bool:
    """Take over the settings of the demo, if one runs, and say so on stderr.

    Call it before Prefect is imported, which reads its settings once.

    Args:
        unless: Variables of which each says, when it is set, that something else is meant.
        home: Where the demo keeps its data.
        environment: What the settings are put into.

    Returns:
        Whether there is one.
    """
    path = home / _NAME
    if any(environment.get(name) for name in unless) or not _runs(home):
        return False
    try:
        settings = dict(line.split("=", 1) for line in shlex.split(path.read_text()))
    except FileNotFoundError:
        return False
    for name in [each for each in environment if each.startswith("PREFECT_")]:
        del environment[name]  # a key or a database of another server
    environment.update(settings)
    print(f"using the demo that runs here ({path})", file=sys.stderr)
    return True


def _runs(home: Path) -> bool:
    """Whether a process holds the demo's lock: the file alone may be left over."""
    if not (home / _NAME).exists():
        return False
    import fcntl  # not on Windows, where there is no demo

    with (home / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
