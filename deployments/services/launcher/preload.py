"""Imports modules into the parent before it forks, and checks that forking is still safe."""

from __future__ import annotations

import ast
import importlib
import os
import stat
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import anyio
import yaml
from pydantic import BaseModel
from rich.emoji import Emoji

# What `prefect.engine` imports while it starts or runs a flow, seen in `sys.modules` afterwards.
ENGINE_MODULES = (
    "prefect.engine",
    "prefect.flow_engine",
    "prefect.task_engine",
    "prefect.deployments.steps.core",
    "prefect.deployments.steps.pull",
    "prefect.runner.storage",
    "prefect.events.clients",
    "prefect.concurrency.asyncio",
    "prefect.concurrency.sync",
)


def flow_modules(prefect_file: Path) -> list[str]:
    """Return the modules that the deployments of a `prefect.yaml` need, without duplicates.

    A module entrypoint (`flows.orders.intake`) names such a module. A file entrypoint
    (`flows/orders.py:intake`) is loaded by each run, so its imports are returned instead.
    """
    if not prefect_file.exists():
        return []
    deployments = (yaml.safe_load(prefect_file.read_text()) or {}).get("deployments") or []
    entrypoints = [deployment.get("entrypoint") or "" for deployment in deployments]
    modules: dict[str, None] = {}
    for entrypoint in filter(None, entrypoints):
        path, is_path, _ = entrypoint.rpartition(":")
        if is_path and path.endswith(".py"):
            modules.update(dict.fromkeys(_imports(prefect_file.parent / path)))
        else:
            modules[path or entrypoint.rpartition(".")[0]] = None
    return list(modules)


def import_all(modules: Iterable[str]) -> dict[str, BaseException]:
    """Import modules one by one; continue after a failure, which the module's runs will report.

    Returns:
        The error for each module that could not be imported.
    """
    failures: dict[str, BaseException] = {}
    for module in modules:
        try:
            importlib.import_module(module)
        except BaseException as exc:  # noqa: BLE001 - a module may even call sys.exit
            failures[module] = exc
    return failures


def warm_up() -> None:
    """Do once what each child would do at first use, without leaving anything open."""
    anyio.run(anyio.sleep, 0)
    "localhost".encode("idna")
    Emoji.replace(":wave:")
    for model in _subclasses(BaseModel):
        model.model_rebuild(
            raise_errors=False
        )  # most of Prefect's models are completed only when used


def open_descriptors() -> set[int]:
    """Return the descriptors of this process's open files, pipes and sockets."""
    listed = [int(entry.name) for entry in Path("/dev/fd").iterdir()]
    return {
        number for number in listed if _is_open(number)
    }  # one of them was used to list the folder


def fork_hazards(descriptors_before: set[int]) -> list[str]:
    """Return what imports have left behind that makes forking unsafe.

    Args:
        descriptors_before: `open_descriptors()` before the imports.

    Returns:
        One phrase for each thread and open file or connection; empty if forking is safe.
    """
    found = [
        f"thread {t.name!r}" for t in threading.enumerate() if t is not threading.main_thread()
    ]
    for descriptor in sorted(open_descriptors() - descriptors_before):
        kind = "connection" if stat.S_ISSOCK(os.fstat(descriptor).st_mode) else "open file"
        found.append(f"{kind} {descriptor}")
    if not found and _native_threads() > 1:
        # Some libraries (OpenBLAS) stop their threads before a fork and restart them after.
        _in_a_fork(lambda: True)
        if _native_threads() > 1:
            found.append("a thread outside Python")
    return found


def import_safe(modules: Iterable[str], descriptors_before: set[int]) -> dict[str, BaseException]:
    """Import, like `import_all`, only modules that a trial in a fork has shown to be safe.

    Returns:
        The reason for each module that was left out.
    """
    failures: dict[str, BaseException] = {}
    for module in modules:

        def is_safe(module: str = module) -> bool:
            import_all([module])
            return not fork_hazards(descriptors_before)

        if _in_a_fork(is_safe):
            failures |= import_all([module])
        else:
            failures[module] = RuntimeError("it leaves a thread, a file or a connection behind")
    return failures


def _subclasses(cls: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for subclass in cls.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)


def _in_a_fork(trial: Callable[[], bool]) -> bool:
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(0 if trial() else 1)
        finally:
            os._exit(1)
    return os.waitpid(pid, 0)[1] == 0


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _native_threads() -> int:
    return len(list(Path("/proc/self/task").iterdir())) if sys.platform == "linux" else 1


def _imports(path: Path) -> list[str]:
    try:
        body = ast.parse(path.read_bytes()).body
    except (OSError, SyntaxError):
        return []
    found: list[str] = []
    for statement in body:
        if isinstance(statement, ast.Import):
            found += [alias.name for alias in statement.names]
        elif isinstance(statement, ast.ImportFrom) and statement.module and not statement.level:
            found.append(statement.module)
    return found
