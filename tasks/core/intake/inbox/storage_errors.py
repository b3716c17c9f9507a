"""What the database's errors mean for the inbox: try again, or mend something."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from blocks.errors import IntegrationError, PermanentError, UnreachableError, UpstreamBusyError

_SYSTEM = "inbox"
_SQLITE_BUSY = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
}
# PostgreSQL classes: 53 out of disk, memory or connections, 55 locked, 57 being shut down.
_POSTGRESQL_BUSY = ("53", "55", "57")
_POSTGRESQL_ROLLED_BACK = "40"


class RolledBackError(UpstreamBusyError):
    """Another transaction was in the way, as in a deadlock: the same again will do."""


@contextmanager
def storage_errors(operation: str) -> Iterator[None]:
    """Map what the database raises.

    Raises:
        RolledBackError: Another transaction was in the way.
        UpstreamBusyError: It is locked, full or shutting down.
        UnreachableError: It does not answer.
        PermanentError: Anything else.
    """
    try:
        yield
    except PoolTimeoutError as exc:
        raise _busy(operation, "all connections are in use") from exc
    except DBAPIError as exc:
        raise _mapped(exc, operation) from exc
    except sqlite3.Error as exc:
        raise _mapped_sqlite(exc, operation) from exc
    except SQLAlchemyError as exc:
        raise _refused(operation, type(exc).__name__) from exc


def _mapped(exc: DBAPIError, operation: str) -> IntegrationError:
    if isinstance(exc.orig, sqlite3.Error):
        return _mapped_sqlite(exc.orig, operation)
    sqlstate = str(getattr(exc.orig, "sqlstate", None) or "")
    if sqlstate.startswith(_POSTGRESQL_ROLLED_BACK):
        return RolledBackError(
            f"another transaction was in the way (SQLSTATE {sqlstate})",
            system=_SYSTEM,
            operation=operation,
        )
    if sqlstate.startswith(_POSTGRESQL_BUSY):
        return _busy(operation, f"SQLSTATE {sqlstate}")
    if exc.connection_invalidated or sqlstate.startswith("08") or _is_connection_failure(exc):
        return UnreachableError(
            "the database does not answer; is it running?", system=_SYSTEM, operation=operation
        )
    return _refused(operation, f"{type(exc.orig).__name__} {sqlstate}".strip())


def _mapped_sqlite(exc: sqlite3.Error, operation: str) -> IntegrationError:
    code = getattr(exc, "sqlite_errorcode", None)  # only set where SQLite itself complained
    if code is not None and code & 0xFF in _SQLITE_BUSY:
        return _busy(operation, exc.sqlite_errorname)
    return _refused(operation, type(exc).__name__)


def _refused(operation: str, kind: str) -> PermanentError:
    # The driver's text may quote values; only its kind is told.
    return PermanentError(
        f"the database refused the statement ({kind})", system=_SYSTEM, operation=operation
    )


def _is_connection_failure(exc: DBAPIError) -> bool:
    # psycopg raises a bare OperationalError, without SQLSTATE, when it cannot connect.
    orig = exc.orig
    return type(orig).__name__ == "OperationalError" and getattr(orig, "sqlstate", 0) is None


def _busy(operation: str, why: str) -> UpstreamBusyError:
    return UpstreamBusyError(
        f"the database is locked, full or overloaded ({why}); nothing was stored",
        system=_SYSTEM,
        operation=operation,
    )
