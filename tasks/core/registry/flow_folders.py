"""Finds where the integrations are: the folders that make up the namespace package `flows`."""

from __future__ import annotations

import importlib.util
from pathlib import Path


def flow_folders() -> list[Path]:
    """The folders named `flows` on Python's path, this project's and those of projects that use it.

    Returns:
        In the order in which imports look through them; none twice.
    """
    spec = importlib.util.find_spec("flows")
    places = (Path(place).resolve() for place in (spec and spec.submodule_search_locations) or ())
    # installers of other projects may leave places that are no folders there
    return list(dict.fromkeys(place for place in places if place.is_dir()))
