"""Reads the rows of a table or query that are new or changed since the last run, page by page.

The caller stores the cursor and advances it only after its sink has committed. Rows are found by
a growing value: a key, a time of change, a row version. A transaction that commits late may have
a smaller value than rows that were read already, so a run reads `overlap` again; the sink gets
some rows twice and must be idempotent. A run after one that stopped at its limit continues there
without overlap: otherwise a change of more rows within the overlap than one run takes would be
read from its start for ever.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from sqlalchemy import ColumnClause, Engine, Select, and_, column, or_, select, table, text

from blocks.errors import BadPayloadError
from tasks.core.connectors.sql.sql_errors import sql_errors

_STOPPED = "|stopped"


class ChangedRowsSettings(BaseModel):
    """Which table or query to read, and the columns by which changed rows are found."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    take: Literal["changed"] = Field("changed", description="Read the rows that changed.")

    table: str | None = Field(None, description="The table; or give a query.")
    schema_name: str | None = Field(None, description="Its schema, if not the default.")
    query: str | None = Field(None, description="A SELECT instead of a table.")
    columns: list[str] = Field(min_length=1, description="The columns to read.")
    version: str = Field(description="The column whose value grows with each change.")
    key: str = Field(description="The column that distinguishes rows of the same version.")
    overlap: float = Field(
        0, ge=0, description="How much to re-read: seconds for times, else units."
    )

    @model_validator(mode="after")
    def _has_one_origin(self) -> Self:
        if (self.table is None) == (self.query is None):
            raise ValueError("give either a table or a query")
        return self


class RowPage(NamedTuple):
    """A page of rows.

    Attributes:
        rows: Column to value, in order of version and key.
        cursor: Where to continue once these are in the sink; None if there was nothing yet.
    """

    rows: list[dict[str, Any]]
    cursor: str | None


class ChangedRows:
    """Reads new and changed rows.

    Args:
        engine: From a `SqlDatabase` block.
        settings: What to read.
        system: The database, for errors.
    """

    def __init__(self, engine: Engine, settings: ChangedRowsSettings, *, system: str) -> None:
        self._engine = engine
        self._settings = settings
        self._system = system
        names = dict.fromkeys([*settings.columns, settings.version, settings.key])
        columns: list[ColumnClause[Any]] = [column(name) for name in names]
        self._origin: Any
        if settings.query is not None:
            self._origin = text(settings.query).columns(*columns).subquery("changed_rows")
        else:
            self._origin = table(str(settings.table), *columns, schema=settings.schema_name)

    def first_page(self, cursor: str | None, *, limit: int) -> RowPage:
        """Return the first page of a run, which starts `overlap` before the cursor.

        Args:
            cursor: The last run's cursor; None for everything. If that run stopped at its limit
                (`stopped_at`), this one continues there.
            limit: Most rows.
        """
        if cursor is not None and cursor.endswith(_STOPPED):
            return self.next_page(cursor.removesuffix(_STOPPED), limit=limit)
        if cursor is None or not self._settings.overlap:
            return self.next_page(cursor, limit=limit)
        version, _ = _read_cursor(cursor)
        earlier = _earlier(version, self._settings.overlap)
        page = self._page(self._origin.c[self._settings.version] >= earlier, limit)
        return page if page.rows else RowPage([], cursor)

    def next_page(self, cursor: str | None, *, limit: int) -> RowPage:
        """Return the page after the previous page's cursor."""
        if cursor is None:
            return self._page(None, limit)
        version, key = _read_cursor(cursor)
        at = self._origin.c[self._settings.version]
        behind = or_(at > version, and_(at == version, self._origin.c[self._settings.key] > key))
        page = self._page(behind, limit)
        return page if page.rows else RowPage([], cursor)

    def _page(self, condition: Any, limit: int) -> RowPage:
        settings = self._settings
        statement: Select[Any] = select(*self._origin.c).limit(limit)
        statement = statement.order_by(
            self._origin.c[settings.version], self._origin.c[settings.key]
        )
        if condition is not None:
            statement = statement.where(condition)
        with sql_errors(self._system, "read rows"), self._engine.connect() as connection:
            rows = [dict(row) for row in connection.execute(statement).mappings()]
        if not rows:
            return RowPage([], None)
        return RowPage(rows, _cursor(rows[-1][settings.version], rows[-1][settings.key]))


def stopped_at(cursor: str) -> str:
    """Return the cursor of a run that stops at its limit: the next run continues there."""
    return cursor + _STOPPED


def farther(cursor: str | None, page: str) -> str:
    """Return the farther of two cursors: the page's, unless the page only re-read rows."""
    if cursor is None or cursor.endswith(_STOPPED):
        return page
    (kept, _), (read, _) = _read_cursor(cursor), _read_cursor(page)
    return cursor if not isinstance(read, str) and read < kept else page


def _cursor(version: Any, key: Any) -> str:
    return f"{_written(version)}|{_written(key)}"


def _read_cursor(cursor: str) -> tuple[Any, Any]:
    version, _, key = cursor.partition("|")
    try:
        return _value(version), _value(key)
    except (ValueError, ArithmeticError, KeyError) as exc:
        raise BadPayloadError(
            "the cursor is invalid; start without one", system="cursor", operation="read rows"
        ) from exc


def _written(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        raise BadPayloadError(
            "version and key must be numbers, times, texts or bytes, and never NULL",
            system="cursor",
            operation="read rows",
        )
    if isinstance(value, bytes | bytearray | memoryview):
        return f"bytes:{bytes(value).hex()}"
    for kind, name in _KINDS.items():
        if isinstance(value, kind):
            if isinstance(value, datetime | date):
                return f"{name}:{value.isoformat()}"
            return f"{name}:{str(value).encode().hex() if kind is str else value}"
    return f"text:{str(value).encode().hex()}"


_KINDS: dict[type, str] = {
    int: "int",
    Decimal: "decimal",
    float: "float",
    datetime: "time",
    date: "day",
    str: "text",
}
_READERS: dict[str, Any] = {
    "int": int,
    "decimal": Decimal,
    "float": float,
    "time": datetime.fromisoformat,
    "day": date.fromisoformat,
    "text": lambda text: bytes.fromhex(text).decode(),
    "bytes": bytes.fromhex,
}


def _value(written: str) -> Any:
    kind, _, content = written.partition(":")
    return _READERS[kind](content)


def _earlier(version: Any, overlap: float) -> Any:
    if isinstance(version, datetime | date):
        return version - timedelta(seconds=overlap)
    if isinstance(version, bytes):  # SQL Server's rowversion is a counter of eight bytes
        number = max(0, int.from_bytes(version) - int(overlap))
        return number.to_bytes(len(version))
    if isinstance(version, str):
        return version  # texts have no distance
    return version - type(version)(overlap)
