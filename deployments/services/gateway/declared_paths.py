"""Paths as they are declared: where an endpoint would be, and what of a path the log may tell."""

from __future__ import annotations

import re
from collections.abc import Iterable

from tasks.core.registry.variables import VARIABLE

_HIDDEN = "…"
_MAX_LOGGED_PATH = 100


def is_instance(path: str, declared: str) -> bool:
    """Whether the path may be the declared one, whatever its variables are."""
    fixed = map(re.escape, VARIABLE.split(declared)[::2])  # the odd ones are the names
    return re.fullmatch("[^/]+".join(fixed), path) is not None


class LoggedPaths:
    """Shortens paths that nobody serves to what holds no secret.

    Where a declared path has a variable, which is how secret ones are written, a path that was
    asked for by a slip may hold its value; so only parts that are declared as they are remain.

    Args:
        declared: All declared paths.
    """

    def __init__(self, declared: Iterable[str]) -> None:
        parts = {part for path in declared for part in path.split("/")}
        self._hides = any(VARIABLE.search(part) for part in parts)
        self._known = {part for part in parts if not VARIABLE.search(part)} | {""}

    def shown(self, path: str) -> str:
        """What the log may tell of a path."""
        if self._hides:
            parts = path.split("/")
            path = "/".join(part if part in self._known else _HIDDEN for part in parts)
        return path[:_MAX_LOGGED_PATH]
