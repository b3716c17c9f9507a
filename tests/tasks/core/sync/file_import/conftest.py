"""The ledger on both databases, a clock under the test's control, and a folder on this disk."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from tasks.core.connectors.folders.local import LocalFiles
from tasks.core.sync.file_import.ledger import FileLedger


class Clock:
    """Stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def new_ledger(state_database: Engine, clock: Clock) -> Callable[[str], FileLedger]:
    def make(owner: str) -> FileLedger:
        return FileLedger(
            state_database,
            importer="inventory",
            place="test://",
            owner=owner,
            lease_s=60,
            clock=clock,
        )

    return make


@pytest.fixture
def folder(tmp_path: Path) -> LocalFiles:
    root = tmp_path / "place"
    (root / "incoming").mkdir(parents=True)
    return LocalFiles(root, system="test://")
