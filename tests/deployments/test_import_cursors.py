"""Cursors from the command line."""

from __future__ import annotations

import pytest

from deployments.import_cursors import main
from tasks.core.state.database import open_database
from tasks.core.sync.api_import.cursors import Cursors

CURSOR = "2026-03-01T12:00:00Z"


@pytest.fixture
def database(tmp_path):
    """The URL of a database with one stream."""
    url = f"sqlite:///{tmp_path / 'state.db'}"
    engine = open_database(url)
    cursors = Cursors(engine)
    cursors.release(cursors.advance(cursors.lease("orders", owner="run"), CURSOR))
    engine.dispose()
    return url


def shown(database, capsys):
    assert main(["--database", database, "show"]) == 0
    return capsys.readouterr().out


def test_cursors_are_shown(database, capsys):
    """A line a stream."""
    assert CURSOR in shown(database, capsys)


def test_a_cursor_is_set_only_when_it_is_meant(database, capsys):
    """Without --yes it is a dry run."""
    setting = ["--database", database, "set", "orders", "--cursor", "2026-02-01T00:00:00Z"]
    assert main(setting) == 0
    assert "add --yes" in capsys.readouterr().out
    assert CURSOR in shown(database, capsys)
    assert main([*setting, "--yes"]) == 0
    assert "2026-02-01" in shown(database, capsys)
    assert main(["--database", database, "set", "orders", "--reset", "--yes"]) == 0
    assert "no cursor yet" in shown(database, capsys)


def test_what_cannot_be_done_is_said(database, capsys):
    """An unknown stream ends with 1 and the streams there are."""
    assert main(["--database", database, "set", "order", "--reset"]) == 1
    assert "there are: orders" in capsys.readouterr().err
