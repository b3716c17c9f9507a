"""The state database of the integrations: SQLite by default, PostgreSQL by URL."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Table, create_engine, event, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, OperationalError
from sqlalchemy.pool import NullPool

from blocks.errors import MisconfiguredError, UnreachableError

URL_VARIABLE = "INTEGRATIONS_DATABASE_URL"
_MIGRATIONS = Path(__file__).parent / "migrations"
_BUSY_TIMEOUT_S = 30
# Otherwise a connection whose other end vanished (a broken line, a server without power) hangs
# until the kernel gives up: after a quarter of an hour, or never when idle.
_NETWORK_OPTIONS = {
    "connect_timeout": 10,  # seconds
    "keepalives": 1,
    "keepalives_idle": 10,  # seconds of silence until the first probe
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,  # milliseconds until what was sent must have been received
}


def database_url() -> str:
    """Return the URL from `INTEGRATIONS_DATABASE_URL`, else a SQLite file in the user's home."""
    configured = os.environ.get(URL_VARIABLE)
    if configured:
        return configured
    return f"sqlite:///{Path.home() / '.integration-patterns' / 'state.db'}"


def open_database(url: str | None = None) -> Engine:
    """Connect and bring the tables up to date.

    Args:
        url: As SQLAlchemy reads it; None for `database_url()`. SQLite runs in WAL mode and
            flushes every commit to disk.

    Raises:
        MisconfiguredError: The URL is invalid or names an unsupported database, or its tables
            are those of a newer version of this project.
        UnreachableError: The database does not respond.
    """
    engine = _engine(url or database_url())
    try:
        migrate(engine)
    except OperationalError as exc:
        raise UnreachableError(
            f"the state database does not answer ({_driver_message(exc)}); is it running, and "
            f"is {URL_VARIABLE} right?",
            system=_name(engine),
            operation="connect",
        ) from exc
    return engine


def migrate(engine: Engine) -> None:
    """Migrate the tables to the newest revision; safe when many processes start at once.

    Raises:
        MisconfiguredError: The tables are those of a newer version.
    """
    known = {path.stem.partition("_")[0] for path in (_MIGRATIONS / "versions").glob("0*.py")}
    with engine.connect() as connection:
        if _is_newest(engine, _revision(connection), known):
            return
    # Alembic takes 0.2 s to import, so it is imported only when needed.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    with writing(engine) as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(4173009)"))
        if _is_newest(engine, _revision(connection), known):
            return
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """Open a read-only transaction."""
    with engine.connect() as connection:
        yield connection


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """Open a write transaction, which takes SQLite's write lock at once to avoid deadlocks."""
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.exec_driver_sql("ROLLBACK")
                raise
            connection.exec_driver_sql("COMMIT")
        else:
            with connection.begin():
                yield connection


def insert_for(connection: Connection, table: Table) -> Any:
    """The `insert` of the connection's database, which knows what to do about conflicts."""
    if connection.dialect.name == "sqlite":
        from sqlalchemy.dialects.sqlite import insert
    else:
        from sqlalchemy.dialects.postgresql import insert  # type: ignore[assignment]
    return insert(table)


def insert_or_ignore(
    connection: Connection, table: Table, values: dict[str, Any], *, key: list[str] | None = None
) -> bool:
    """Insert a row, unless one is there already.

    Args:
        connection: Of a writing transaction.
        table: Which.
        values: The row.
        key: The columns that tell; None for any unique ones.

    Returns:
        Whether it was inserted.
    """
    adding = insert_for(connection, table).values(values).on_conflict_do_nothing(index_elements=key)
    return connection.execute(adding.returning(*table.primary_key)).first() is not None


def _engine(url: str) -> Engine:
    try:
        parsed = make_url(url)
    except ArgumentError as exc:
        raise MisconfiguredError(
            f"{URL_VARIABLE} is not a database URL; write sqlite:////path/to/file.db or "
            "postgresql+psycopg://user:password@host/database",
            system="state database",
            operation="connect",
        ) from exc
    backend = parsed.get_backend_name()
    if backend == "postgresql":
        options = {n: v for n, v in _NETWORK_OPTIONS.items() if n not in parsed.query}
        return create_engine(
            parsed.set(drivername="postgresql+psycopg"), pool_pre_ping=True, connect_args=options
        )
    if backend != "sqlite":
        raise MisconfiguredError(
            f"{URL_VARIABLE} names {backend!r}; supported are sqlite and postgresql",
            system="state database",
            operation="connect",
        )
    if parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    # No pool: a connection costs 0.1 ms and is never shared between threads or forks.
    engine = create_engine(parsed, poolclass=NullPool, connect_args={"timeout": _BUSY_TIMEOUT_S})
    event.listen(engine, "connect", _set_pragmas)
    return engine


def _set_pragmas(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # transactions are opened by `writing`
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _is_newest(engine: Engine, revision: str | None, known: set[str]) -> bool:
    if revision is not None and revision not in known:
        raise MisconfiguredError(
            f"its tables are of a newer version (revision {revision}; this code knows those up to "
            f"{max(known)}); update this machine's code and start it again",
            system=_name(engine),
            operation="migrate",
        )
    return revision == max(known)


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return found


def _name(engine: Engine) -> str:
    return f"state database ({engine.url.render_as_string(hide_password=True)})"


def _driver_message(exc: OperationalError) -> str:
    return str(exc.orig).strip().splitlines()[0]
