"""Runs of the shipped flows end when they are cancelled, however silent the other side is."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest
import yaml
from sqlalchemy import Engine, text

from blocks.sql_database import SqlDatabase

BEFORE_IT_IS_KILLED_S = 25
"""Prefect kills what has not ended 30 seconds after it was told to; ours needs a few."""

ORDERS_IMPORT = "flows.orders_import.flow.orders_import"
FILE_IMPORT = "flows.file_import.flow.file_import"
TABLE_IMPORT = "flows.table_import.flow.table_import"
SALES_REPORT = "flows.sales_report.flow.sales_report"
TABLE = f"test_{uuid4().hex[:12]}"
POSTGRESQL = {
    "kind": "postgresql",
    "host": "127.0.0.1",
    "database": "postgres",
    "username": "postgres",
    "tls": False,
}
ROWS = {
    "take": "changed",
    "table": TABLE,
    "columns": ["sku", "name"],
    "version": "at",
    "key": "sku",
}
MAIL = {"kind": "mail", "block": "mail-server/silent", "to": ["manager@example.org"]}


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(120)
        yield listener


@pytest.fixture
def shop() -> Iterator[Engine]:
    """A database with the table `TABLE`."""
    engine = SqlDatabase(**POSTGRESQL).get_client()
    with engine.begin() as connection:
        connection.execute(text(f"CREATE TABLE {TABLE} (sku TEXT, name TEXT, at INT)"))
    yield engine
    with engine.begin() as connection:
        connection.execute(text(f"DROP TABLE {TABLE}"))
    engine.dispose()


@pytest.fixture(scope="module")
def fresh(running):
    """A launcher that has killed and been killed by no other test."""
    running.stop_launcher()
    running.start_launcher()
    return running


@pytest.fixture
def start(fresh, own_app, silent, migrated_sqlite: Path, tmp_path: Path) -> Callable[..., Any]:
    """Starts a run of a shipped flow, whose blocks called silent lead to the silent server."""
    address = {"host": "127.0.0.1", "port": silent.getsockname()[1]}
    blocks = {
        "http-api/own-app": {
            "base_url": f"{own_app.base_url}/api/v1",
            "auth": {"kind": "api_key", "key": own_app.api_key},
        },
        "http-api/silent": {"base_url": f"http://127.0.0.1:{address['port']}"},
        "sftp-server/silent": {
            **address,
            "username": "importer",
            "password": "secret",
            "trust_any_host_key": True,
        },
        "mail-server/silent": {**address, "security": "none", "sender": "reports@example.org"},
        "sql-database/silent": POSTGRESQL | address,
        "sql-database/shop": POSTGRESQL,
    }
    (tmp_path / "blocks.yaml").write_text(yaml.safe_dump(blocks))
    command = [sys.executable, "-m", "deployments.register_blocks", str(tmp_path / "blocks.yaml")]
    subprocess.run(command, env=fresh.environment, check=True, timeout=120)
    state = shutil.copy(migrated_sqlite, tmp_path / "state.db")
    environment = {
        "INTEGRATIONS_DATABASE_URL": f"sqlite:///{state}",
        "INTEGRATIONS_REPORTS_DIR": str(tmp_path / "reports"),
    }

    def start(entrypoint: str, **parameters: Any) -> dict[str, Any]:
        deployment = fresh.deploy(
            tmp_path.name, entrypoint=entrypoint, job_variables={"env": environment}
        )
        run: dict[str, Any] = fresh.start_run(deployment, **parameters)
        return run

    return start


def end(launcher, run, port: int) -> None:
    """Cancel a run and wait until its process, which has the port, ends by itself."""
    process = with_port(launcher.launcher.children(recursive=True), port)
    launcher.post(f"/flow_runs/{run['id']}/set_state", state={"type": "CANCELLING"})
    launcher.wait(lambda: not process.is_running(), timeout_s=BEFORE_IT_IS_KILLED_S)
    launcher.wait_for_state(run, "Cancelled")


def with_port(processes: Sequence[psutil.Process], port: int) -> psutil.Process:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if any(each.laddr.port == port for each in process.net_connections("tcp")):
                return process
    raise AssertionError("nobody has it")


def table_import(database: str) -> dict[str, Any]:
    return {"name": "stock", "database": database, "rows": ROWS, "record_type": "inventory"}


@pytest.mark.parametrize(
    ("entrypoint", "parameters"),
    [
        (ORDERS_IMPORT, {"source": "http-api/silent"}),
        (FILE_IMPORT, {"source": "sftp-server/silent", "record_type": "inventory"}),
        (TABLE_IMPORT, table_import("sql-database/silent")),
        (SALES_REPORT, {"destinations": [MAIL]}),
    ],
    ids=["API import", "file import", "table import", "report by mail"],
)
def test_a_run_whose_server_is_silent_ends(fresh, start, silent, entrypoint, parameters):
    """It is cancelled through Prefect, and nobody has to kill it."""
    run = start(entrypoint, **parameters)
    connection, (_, port) = silent.accept()
    with connection:
        end(fresh, run, port)


def test_a_run_that_waits_for_a_lock_ends(fresh, start, shop):
    """A statement that is never done keeps nobody either."""
    with shop.connect() as holder:
        holder.execute(text(f"LOCK TABLE {TABLE} IN ACCESS EXCLUSIVE MODE"))
        run = start(TABLE_IMPORT, **table_import("sql-database/shop"))
        fresh.wait(lambda: waiting_ports(shop) != [])
        [port] = waiting_ports(shop)
        end(fresh, run, port)


def waiting_ports(database: Engine) -> Sequence[int]:
    """Those of the clients that wait for the table."""
    query = (
        "SELECT client_port FROM pg_stat_activity"
        f" WHERE wait_event_type = 'Lock' AND query LIKE '%{TABLE}%'"
    )
    with database.connect() as connection:
        return connection.scalars(text(query)).all()
