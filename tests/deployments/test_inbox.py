"""The inbox from the command line."""

from __future__ import annotations

import asyncio
import io
import shutil
from contextlib import redirect_stdout
from datetime import UTC, datetime

import pytest

from deployments.inbox import main
from tasks.core.intake.inbox.new_delivery import NewDelivery
from tasks.core.intake.inbox.rows import LeaseOwner
from tasks.core.intake.inbox.settlement import Settlement
from tasks.core.intake.inbox.store import Inbox
from tasks.core.intake.inbox.writer import InboxWriter
from tasks.core.state.database import open_database


@pytest.fixture
def url(migrated_sqlite, tmp_path):
    """An inbox with one delivery done and one dead-lettered; their ids say which."""
    url = f"sqlite:///{shutil.copy(migrated_sqlite, tmp_path / 'inbox.db')}"
    engine = open_database(url)
    asyncio.run(store(engine, "done", "dead_letter"))
    inbox = Inbox(engine)
    for each in inbox.lease("orders", LeaseOwner("run"), limit=9):
        status = each.json()["is"]
        inbox.settle([Settlement(each, status, "unknown \x1b[31mitem" * (status == "dead_letter"))])
    inbox.close()
    return url


async def store(engine, *keys):
    writer = InboxWriter(engine)
    await writer.start()
    await writer.store(
        [
            NewDelivery(
                integration="orders",
                endpoint="/hooks/orders",
                event="order.created",
                dedup_key=key,
                ordering_key=None,
                headers=b'[["X-Key", "1"]]',
                body=b'{"is": "%s"}' % key.encode(),
                payload=None,
                content_type="application/json",
                received_at=datetime(2026, 3, 1, 12, i, tzinfo=UTC),
            )
            for i, key in enumerate(keys)
        ]
    )
    await writer.close()


@pytest.fixture
def run(url, capsys):
    """Runs a command; returns its lines."""

    def run(*arguments, expected=0):
        assert main(["--database", url, *arguments]) == expected
        return capsys.readouterr().out.splitlines()

    return run


def test_list(run):
    """Deliveries are listed oldest first, one a line, and can be selected."""
    done, dead_lettered = run("list")
    assert "2026-03-01 12:00:00Z  done " in done
    assert dead_lettered.endswith("dead_letter   1  orders order.created  unknown ?[31mitem")
    assert run("list", "--status", "dead_letter", "--from", "2026-03-01T13:01:00+01:00") == [
        dead_lettered
    ]
    assert run("list", "--until", "2026-03-01T12:00:00+00:00") == []


def test_counts(run):
    """Deliveries are counted by integration and status."""
    assert [line.split() for line in run("counts")] == [
        ["orders", "dead_letter", "1"],
        ["orders", "done", "1"],
    ]


def test_show(run):
    """One delivery is shown with headers and payload."""
    [dead_lettered] = run("list", "--status", "dead_letter")
    shown = run("show", dead_lettered.split()[0])
    assert shown[0] == "order.created received at /hooks/orders 2026-03-01T12:01:00+00:00"
    assert shown[1:] == ["X-Key: 1", "", '{"is": "dead_letter"}']


@pytest.mark.parametrize("options", [[], ["--raw"]])
def test_show_in_a_terminal(run, url, options):
    """What a sender wrote does not steer the terminal; a file gets it byte for byte."""
    engine = open_database(url)
    asyncio.run(store(engine, "\x1b[2J\n\x9b1m ö"))
    engine.dispose()
    shown = run("list", "--status", "received")[0].split()[0]
    for kind, told in ((Terminal, "?[2J\n?1m ö"), (Screenless, "\x1b[2J\n\x9b1m ö")):
        out = kind(io.BytesIO(), "utf-8")
        with redirect_stdout(out):
            assert main(["--database", url, "show", shown, *options]) == 0
        out.flush()
        assert f'\n\n{{"is": "{told}"}}\n' in out.buffer.getvalue().decode()


class Screenless(io.TextIOWrapper):
    """Standard output that is a file."""


class Terminal(Screenless):
    """Standard output that is a terminal."""

    def isatty(self):
        return True


def test_show_of_an_unknown_one(run):
    """A delivery that is not there makes the command fail and say so."""
    run("show", "0" * 32, expected=1)


def test_replay(run):
    """A replay is dry until it is told otherwise, and means dead-lettered ones by default."""
    assert run("replay", "--integration", "orders")[-1].startswith("1 deliveries would be")
    assert [line.split()[3] for line in run("list")] == ["done", "dead_letter"]
    assert run("replay", "--integration", "orders", "--yes")[-1].startswith("1 deliveries replayed")
    assert [line.split()[3] for line in run("list")] == ["done", "received"]


def test_what_the_limit_leaves_out(run, url, capsys):
    """A list or replay that ends at its limit says that there may be more, and how to go on."""
    limited = ["--database", url, "list", "--limit"]
    assert main([*limited, "2"]) == 0
    assert "the limit of 2; for more, raise --limit" in capsys.readouterr().err
    assert main([*limited, "3"]) == 0
    assert capsys.readouterr().err == ""
    replay = ["--database", url, "replay", "--integration", "orders", "--limit", "1"]
    assert main([*replay, "--yes"]) == 0
    assert "the limit of 1; for more, run it again" in capsys.readouterr().err


def test_the_default_database_is_told(url, monkeypatch, capsys, tmp_path):
    """Whoever has chosen no database is told which one is looked at; who has is not."""
    monkeypatch.setattr("deployments.state_commands.use_running_demo", lambda *_: False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("INTEGRATIONS_DATABASE_URL", raising=False)
    assert main(["counts"]) == 0
    assert f"sqlite:///{tmp_path}/.integration-patterns/state.db" in capsys.readouterr().err
    monkeypatch.setenv("INTEGRATIONS_DATABASE_URL", url)
    assert main(["counts"]) == 0
    assert capsys.readouterr().err == ""


def test_replay_by_id(run):
    """A delivery named by its id is replayed whatever became of it."""
    done = run("list", "--status", "done")[0].split()[0]
    run("replay", done, "--yes", "--force-new-effects")
    assert [line.split()[3] for line in run("list")] == ["received", "dead_letter"]


def test_purge(run):
    """A purge counts until it is told otherwise; dead-lettered ones are kept."""
    arguments = ("purge", "--older-than-days", "-1")
    assert run(*arguments) == ["1 would go; add --yes"]
    assert run(*arguments, "--yes") == ["1 deliveries deleted"]
    assert [line.split()[3] for line in run("list")] == ["dead_letter"]
