"""Tracks the project's code that the parent has loaded, and whether it is still current."""

from __future__ import annotations

import os
import site
import sys
import sysconfig
import time
import traceback
from collections.abc import Iterable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType


def project_modules() -> dict[str, ModuleType]:
    """Return the loaded modules that are neither Python's nor installed: the code people edit."""
    return {
        name: module
        for name, module in sys.modules.items()
        if name != "__main__" and _is_project(getattr(module, "__spec__", None))
    }


class CodeWatch:
    """Detects files that have changed since they were imported."""

    def __init__(self, paths: Iterable[Path], *, imported_since: float) -> None:
        """Record the files' present versions.

        Args:
            paths: Files and folders, including ones that do not exist yet.
            imported_since: Unix time before the imports: a file written later may have changed
                after it was read.
        """
        self._seen = {path: _version(path) for path in paths}
        now = time.time()
        self._in_doubt = any(
            version is not None and imported_since <= version[0] / 1e9 <= now
            for version in self._seen.values()
        )

    def is_stale(self) -> bool:
        """Return whether a file was changed, created or removed; takes about 2 µs per file."""
        return self._in_doubt or any(_version(path) != v for path, v in self._seen.items())


def files_to_watch(failures: Iterable[BaseException] = ()) -> set[Path]:
    """Return the files of the project's modules, and the folders that an installation changes.

    Args:
        failures: Why modules could not be imported; their files are watched too.
    """
    files = {getattr(module, "__file__", None) for module in project_modules().values()}
    for exc in failures:
        files |= {frame.f_code.co_filename for frame, _ in traceback.walk_tb(exc.__traceback__)}
        files.add(getattr(exc, "filename", None))  # of a SyntaxError
    mine = {Path(file) for file in files if file and not file.startswith((*_NOT_PROJECT, "<"))}
    return mine | {Path(folder) for folder in _INSTALLED}


class ReusedModules(MetaPathFinder, Loader):
    """Provides loaded modules to the import system wherever it would load the same file.

    A run may find its code elsewhere than the parent did, because its pull steps may fetch another
    copy. So the import system decides which file a module comes from, and only executing that
    file is skipped.
    """

    def __init__(self, modules: dict[str, ModuleType]) -> None:
        self._modules = modules
        self._specs = {name: m.__spec__ for name, m in modules.items() if m.__spec__}

    def install(self) -> None:
        """Remove the modules from `sys.modules` and offer them to each import instead."""
        for name in self._modules:
            sys.modules.pop(name, None)
        sys.meta_path.insert(0, self)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the loaded module's spec if the same file would be found now."""
        known = self._specs.get(fullname)
        if known is None:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        answers = (finder.find_spec(fullname, path, target) for finder in others)
        found = next(filter(None, answers), None)
        if found is None or _place(found) != _place(known):
            return found
        return ModuleSpec(fullname, self, origin=known.origin, is_package=_is_package(known))

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return the loaded module."""
        return self._modules[spec.name]

    def exec_module(self, module: ModuleType) -> None:
        """Undo the import system's changes instead: the module was executed before."""
        if module.__spec__ is not None:
            module.__spec__ = self._specs[module.__spec__.name]


def _place(spec: ModuleSpec) -> tuple[str | None, list[str]]:
    return spec.origin, list(spec.submodule_search_locations or ())


def _is_package(spec: ModuleSpec) -> bool:
    return spec.submodule_search_locations is not None


def _version(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _is_project(spec: ModuleSpec | None) -> bool:
    if spec is None:
        return False
    places = [spec.origin] if spec.has_location else list(spec.submodule_search_locations or ())
    return any(place and not place.startswith(_NOT_PROJECT) for place in places)


_PATHS = sysconfig.get_paths()
_INSTALLED = sorted({_PATHS["purelib"], _PATHS["platlib"], *site.getsitepackages()})
_NOT_PROJECT = tuple(
    path + os.sep for path in (*_INSTALLED, _PATHS["stdlib"], _PATHS["platstdlib"])
)
