"""Lets commands in a second terminal use the running demo, through a file with its settings.

The file is `.demo/environment`, readable by this user only, while the demo runs. A shell loads it
with `set -a; . .demo/environment`.
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
    """Write the demo's settings for `use_running_demo`; return the file's path."""
    path = home / _NAME
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:  # noqa: PTH123
        file.writelines(f"{name}={shlex.quote(value)}\n" for name, value in settings.items())
    return path


def use_running_demo(
    *unless: str, home: Path = HOME, environment: MutableMapping[str, str] = os.environ
) -> bool:
    """Use the settings of the demo, if one is running, and say so on stderr.

    Call it before importing Prefect, which reads its settings once.

    Args:
        unless: Variables that, if any is set, keep the demo's settings from being used.
        home: Where the demo stores its data.
        environment: Where to put the settings.

    Returns:
        Whether a demo's settings are used.
    """
    path = home / _NAME
    if any(environment.get(name) for name in unless) or not _runs(home):
        return False
    try:
        settings = dict(line.split("=", 1) for line in shlex.split(path.read_text()))
    except FileNotFoundError:
        return False
    for name in [each for each in environment if each.startswith("PREFECT_")]:
        del environment[name]  # another server's key or database
    environment.update(settings)
    print(f"using the demo that runs here ({path})", file=sys.stderr)
    return True


def _runs(home: Path) -> bool:
    """Return whether a process holds the demo's lock; the file alone may be stale."""
    if not (home / _NAME).exists():
        return False
    import fcntl  # not on Windows, where there is no demo

    with (home / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
