"""Finds the folders of integrations, which make up the namespace package `flows`."""

from __future__ import annotations

import importlib.util
from pathlib import Path


def flow_folders() -> list[Path]:
    """Return the folders `flows` on Python's path, of this project and of projects that use it.

    Returns:
        The folders in import order, each once.
    """
    spec = importlib.util.find_spec("flows")
    places = (Path(place).resolve() for place in (spec and spec.submodule_search_locations) or ())
    # installers of other projects may leave entries that are not folders
    return list(dict.fromkeys(place for place in places if place.is_dir()))
