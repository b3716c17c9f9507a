"""The sandbox's scenarios: each module here plays one outside system.

A module has one function, the context manager `run(sandbox)`. It starts the stand-in, adds its
blocks to `sandbox.blocks`, schedules the partner's actions with `sandbox.every(...)`, and stops
the stand-in at its end. Adding a partner touches no other files.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from prefect.blocks.core import Block


@dataclass(slots=True)
class Sandbox:
    """The inputs and outputs of the sandbox's parts.

    Attributes:
        data: The sandbox's folder; each part has its own below it.
        gateway: URL of the webhook gateway, which starts after the sandbox; None without one.
        own_app: URL of the user's own application.
        blocks: Slug to block; each part adds its own.
    """

    data: Path
    gateway: str | None
    own_app: str
    blocks: dict[str, Block]
    _habits: list[tuple[float, Callable[[], object]]] = field(default_factory=list)

    def port(self, name: str) -> int:
        """Return a part's port: the one of last time, if it is free.

        Otherwise registrations at the part would be lost when the sandbox is restarted.

        Args:
            name: The part's name.
        """
        file = self.data / "ports.json"
        ports: dict[str, int] = json.loads(file.read_text()) if file.exists() else {}
        ports[name] = _free_port(ports.get(name, 0)) or _free_port(0)
        file.write_text(json.dumps(ports))
        return ports[name]

    def every(self, seconds: float, action: Callable[[], object]) -> None:
        """Repeat an action, from when the gateway responds until the sandbox stops.

        Args:
            seconds: From the end of one call to the next; the first call is immediate.
            action: What to do; errors are printed and do not stop the repetition.
        """
        self._habits.append((seconds, action))

    @contextmanager
    def living(self, stopping: threading.Event) -> Iterator[None]:
        """Run the parts' repeated actions, each in its own thread."""
        threads = [
            threading.Thread(target=_repeat, args=(stopping, seconds, action), daemon=True)
            for seconds, action in self._habits
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stopping.set()
            deadline = time.monotonic() + 5
            for thread in threads:
                thread.join(max(0, deadline - time.monotonic()))


@contextmanager
def running_parts(sandbox: Sandbox) -> Iterator[None]:
    """Start every part, in the order of their names."""
    with ExitStack() as running:
        for module_info in pkgutil.iter_modules(__path__, prefix=f"{__name__}."):
            running.enter_context(importlib.import_module(module_info.name).run(sandbox))
        yield


def _free_port(wanted: int) -> int:
    """Return the port if it is free, any free one for 0, or 0 if it is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            return 0
        port: int = probe.getsockname()[1]
        return port


def _repeat(stopping: threading.Event, seconds: float, action: Callable[[], object]) -> None:
    while not stopping.is_set():
        try:
            action()
        except Exception as exc:  # noqa: BLE001 - a stand-in's trouble must not end the others
            print(f"the sandbox could not {action.__name__}: {exc}", flush=True)
        stopping.wait(seconds)
