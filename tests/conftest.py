"""Fixtures shared by all tests; the sandbox brings its own, as an installed plugin of pytest."""

from __future__ import annotations

import gc
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from sqlalchemy import Engine

from tasks.core.state.database import open_database

# No test judges by the clock: the machines are shared.
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")

# Prefect's test server would call home, and log that it cannot.
os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"

pytest_plugins = ["tests.watchdog", "tests.leftovers"]

POSTGRESQL_URL = os.environ.get(
    "TEST_POSTGRESQL_URL", "postgresql://postgres@127.0.0.1:5432/postgres"
)


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with all tables, to copy: migrating takes longer than most tests."""
    path = tmp_path_factory.mktemp("state") / "migrated.db"
    engine = open_database(f"sqlite:///{path}")
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    engine.dispose()
    return path


@pytest.fixture(scope="session")
def prefect_server_of_session() -> Iterator[None]:
    """A real Prefect server on SQLite in a directory of its own."""
    from prefect.testing.utilities import prefect_test_harness  # takes seconds

    with prefect_test_harness(server_startup_timeout=600):
        yield


@pytest.fixture
def prefect_server(prefect_server_of_session: None) -> Iterator[None]:
    """The Prefect server of the session."""
    yield
    gc.collect()  # Prefect's own clients leave sockets to it: not to the tests that follow


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[str]:
    """A PostgreSQL database of our own with all tables; skips where there is no server."""
    try:
        admin = psycopg.connect(POSTGRESQL_URL, autocommit=True, connect_timeout=3)
    except psycopg.OperationalError as exc:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no PostgreSQL at TEST_POSTGRESQL_URL ({exc})")
    name = f"test_{uuid.uuid4().hex}"
    with admin:
        admin.execute(f"CREATE DATABASE {name}")
        url = POSTGRESQL_URL.rpartition("/")[0] + f"/{name}"
        open_database(url).dispose()
        yield url
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgresql"])
def state_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty state database with all tables, once of each kind."""
    if request.param == "sqlite":
        path = tmp_path / "state.db"
        shutil.copy(request.getfixturevalue("migrated_sqlite"), path)
        yield f"sqlite:///{path}"
        return
    url = request.getfixturevalue("postgresql_url")
    yield url
    with psycopg.connect(url) as connection:  # a new database takes longer than most tests
        tables = connection.execute(
            "SELECT string_agg(quote_ident(tablename), ', ') FROM pg_tables "
            "WHERE schemaname = 'public' AND tablename <> 'alembic_version'"
        ).fetchone()
        connection.execute(f"TRUNCATE {tables[0]} CASCADE")


@pytest.fixture
def state_database(state_database_url: str) -> Iterator[Engine]:
    """An empty state database with all tables, once of each kind."""
    engine = open_database(state_database_url)
    yield engine
    engine.dispose()
