"""Maps database errors of all drivers to the project's error tree."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from blocks.errors import (
    IntegrationError,
    MisconfiguredError,
    PermanentError,
    UnreachableError,
    UpstreamBusyError,
    UpstreamRejectedError,
)

# SQLSTATE classes: 08 connection, 28 login, 3D no such database, 42 no such table or column or
# no permission, 23 constraint, 40 rolled back, 53 out of something, 55 locked, 57 shutting down.
_BUSY_STATES = ("40", "53", "55", "57")
_MISCONFIGURED_STATES = ("28", "3D", "42")
# MariaDB: too many connections, lock wait timeout, deadlock, server shutting down, read only
_BUSY_MARIADB = {1040, 1205, 1213, 1053, 1290, 1317, 3024, 1969}
_MISCONFIGURED_MARIADB = {1044, 1045, 1049, 1054, 1142, 1146}
_UNREACHABLE_MARIADB = {2002, 2003, 2005, 2006, 2013}
_CONSTRAINT_MARIADB = {1048, 1062, 1364, 1406, 1451, 1452, 4025}
# SQL Server: deadlock victim, lock timeout, out of resources, database being recovered
_BUSY_MSSQL = {1205, 1222, 701, 8645, 10928, 10929, 40197, 40501, 40613, 49918, 922, 17142}
_MISCONFIGURED_MSSQL = {18456, 4060, 208, 207, 229, 230, 916}
_CONSTRAINT_MSSQL = {515, 547, 2601, 2627, 2628, 8152}


@contextmanager
def sql_errors(system: str, operation: str, *, record: str | None = None) -> Iterator[None]:
    """Map SQLAlchemy's errors; leave out the drivers' texts, which quote values.

    Raises:
        UnreachableError: The server does not respond.
        UpstreamBusyError: Locked, rolled back for another transaction, or overloaded.
        MisconfiguredError: The login is wrong, or a table or column is missing.
        UpstreamRejectedError: A constraint is violated.
        PermanentError: Anything else.
    """
    where: dict[str, Any] = {"system": system, "operation": operation, "record": record}
    try:
        yield
    except DBAPIError as exc:
        raise _mapped(exc, where) from exc
    except OSError as exc:  # python-tds does not wrap its socket errors
        raise UnreachableError(
            f"the database does not answer ({type(exc).__name__})", **where
        ) from exc
    except SQLAlchemyError as exc:
        raise PermanentError(f"the statement is wrong ({type(exc).__name__})", **where) from exc


def _mapped(exc: DBAPIError, where: dict[str, Any]) -> IntegrationError:
    kind, told = _verdict(exc)
    if kind is UnreachableError:
        return UnreachableError(f"the database does not answer ({told})", **where)
    if kind is UpstreamBusyError:
        return UpstreamBusyError(f"locked, rolled back or overloaded ({told})", **where)
    if kind is MisconfiguredError:
        return MisconfiguredError(
            f"check login, permissions, and the names of table and columns ({told})", **where
        )
    if kind is UpstreamRejectedError:
        return UpstreamRejectedError(f"a constraint of the table refuses it ({told})", **where)
    return PermanentError(f"the database refused the statement ({told})", **where)


def _verdict(exc: DBAPIError) -> tuple[type[IntegrationError], str]:
    origin: Any = exc.orig
    state = str(getattr(origin, "sqlstate", None) or "")
    number = _number(origin)
    told = state or (str(number) if number is not None else type(origin).__name__)
    module = type(origin).__module__.partition(".")[0]
    if module == "sqlite3":
        return _sqlite_verdict(origin), str(getattr(origin, "sqlite_errorname", told))
    if module == "pymysql":
        return _by_number(
            number, _BUSY_MARIADB, _MISCONFIGURED_MARIADB, _CONSTRAINT_MARIADB, _UNREACHABLE_MARIADB
        ), told
    if number is not None and not state:
        return _by_number(number, _BUSY_MSSQL, _MISCONFIGURED_MSSQL, _CONSTRAINT_MSSQL, set()), told
    if state.startswith(_BUSY_STATES):
        return UpstreamBusyError, told
    if state.startswith(_MISCONFIGURED_STATES):
        return MisconfiguredError, told
    if state.startswith("23"):
        return UpstreamRejectedError, told
    has_lost = exc.connection_invalidated or state.startswith("08")
    if has_lost or (not state and type(origin).__name__ in _LOST):
        return UnreachableError, told
    return PermanentError, told


# drivers' errors without a code when there is no connection
_LOST = {
    "OperationalError",
    "InterfaceError",
    "LoginError",
    "ClosedConnectionError",
    "TimeoutError",
}


def _by_number(
    number: int | None,
    busy: set[int],
    misconfigured: set[int],
    constraint: set[int],
    unreachable: set[int],
) -> type[IntegrationError]:
    for numbers, kind in (
        (busy, UpstreamBusyError),
        (misconfigured, MisconfiguredError),
        (constraint, UpstreamRejectedError),
        (unreachable, UnreachableError),
    ):
        if number in numbers:
            return kind
    return UnreachableError if number in (None, 0) else PermanentError


def _sqlite_verdict(origin: Any) -> type[IntegrationError]:
    import sqlite3

    if isinstance(origin, sqlite3.IntegrityError):
        return UpstreamRejectedError
    code = getattr(origin, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL):
        return UpstreamBusyError
    if code in (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
        return MisconfiguredError
    return PermanentError


def _number(origin: Any) -> int | None:
    for name in ("msg_no", "number"):
        found = getattr(origin, name, None)
        if isinstance(found, int):
            return found
    first = origin.args[0] if getattr(origin, "args", ()) else None
    return first if isinstance(first, int) else None
