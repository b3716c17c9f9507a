"""What only some integrations need is installed in one way, wherever it is told."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

PROJECT = Path(__file__).parents[1]
EXTRAS = set(
    tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
)
PLACES = ("blocks", "tasks", "docs")


def test_what_is_missing_is_installed_without_taking_away_the_rest():
    """Errors and guides name extras that exist, and never an exact `uv sync`."""
    named = set()
    for file in [path for place in PLACES for path in (PROJECT / place).rglob("*.[pm][yd]")]:
        text = file.read_text()
        assert "uv sync" not in text, file
        found = re.findall(r'(?:EXTRAS=|extra=")([a-z-]+)', text)
        assert EXTRAS.issuperset(set(found) - {"forbid"}), file
        named.update(found)
    assert {"azure-files", "google-drive", "kafka", "pgp"} <= named
    recipe = (PROJECT / "Makefile").read_text().partition("\ninstall:")[2].split("\n\n")[0]
    assert "--inexact" in recipe


def test_the_guide_to_production_names_every_extra():
    """Nobody learns of one only when a run fails."""
    guide = (PROJECT / "docs" / "deploying.md").read_text()
    assert all(f"`{extra}`" in guide for extra in EXTRAS)
