"""A Salesforce organisation's records: created, changed, deleted, queried by a part of SOQL.

Source: developer.salesforce.com, REST API: query, queryAll, sObject collections.
"""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

_PREFIXES = {"Account": "001", "Contact": "003", "Opportunity": "006"}
_SOQL = re.compile(
    r"SELECT (?P<fields>[\w, ]+?) FROM (?P<object>\w+)(?: WHERE (?P<where>.+?))?"
    r"(?: ORDER BY (?P<order>\w+))?(?: LIMIT (?P<limit>\d+))?",
    re.IGNORECASE | re.DOTALL,
)
_IN = re.compile(r"(\w+) IN \(([^()]*)\)", re.IGNORECASE)
_EQUALS = re.compile(r"(\w+) = '([^']*)'")
_CHECKSUM = "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"


class QueryError(Exception):
    """The query is none that is understood here."""


@dataclass(frozen=True, slots=True)
class Change:
    """One record was created or changed.

    Attributes:
        object_type: E.g. "Opportunity".
        id: Of the record.
        is_new: Whether it was created.
    """

    object_type: str
    id: str
    is_new: bool


class SalesforceRecords:
    """The records of one organisation; safe for threads.

    Attributes:
        on_change: Told of every record created or changed.
    """

    def __init__(self) -> None:
        self.on_change: Callable[[Change], None] = lambda _change: None
        self._lock = threading.Lock()
        self._records: dict[str, dict[str, dict[str, Any]]] = {}
        self._numbers = itertools.count(1)

    def create(self, object_type: str, **fields: Any) -> str:
        """Make a record; returns its id of 18 characters."""
        now = _instant()
        with self._lock:
            id_ = record_id(_PREFIXES[object_type], next(self._numbers))
            self._records.setdefault(object_type, {})[id_] = {
                **fields,
                "Id": id_,
                "IsDeleted": False,
                "CreatedDate": now,
                "SystemModstamp": now,
            }
        self.on_change(Change(object_type, id_, is_new=True))
        return id_

    def update(self, object_type: str, id_: str, **fields: Any) -> None:
        """Change a record."""
        with self._lock:
            self._records[object_type][id_] |= {**fields, "SystemModstamp": _instant()}
        self.on_change(Change(object_type, id_, is_new=False))

    def delete(self, object_type: str, id_: str, *, purge: bool = False) -> None:
        """Move a record to the recycle bin, or from there to nowhere; nobody is told."""
        with self._lock:
            if purge:
                del self._records[object_type][id_]
            else:
                self._records[object_type][id_] |= {"IsDeleted": True}

    def fields(self, object_type: str, id_: str, names: Sequence[str]) -> dict[str, Any]:
        """Some fields of a record as it is now; those that are not there are None."""
        with self._lock:
            record = self._records.get(object_type, {}).get(id_, {})
            return {name: record.get(name) for name in names}

    def retrieve(
        self, object_type: str, ids: Sequence[str], names: Sequence[str]
    ) -> list[dict[str, Any] | None]:
        """Records by id, in that order; None for those that are not there or are deleted."""
        with self._lock:
            records = self._records.get(object_type, {})
            found = [records.get(id_[:18]) for id_ in ids]
            return [
                None
                if record is None or record["IsDeleted"]
                else _shown(object_type, record, names)
                for record in found
            ]

    def query(self, soql: str, *, deleted_too: bool = False) -> list[dict[str, Any]]:
        """The records that a query asks for.

        Raises:
            QueryError: It is none of `SELECT a, b FROM X [WHERE a = 'x' AND b IN ('y')]
                [ORDER BY a] [LIMIT n]`.
        """
        asked = _SOQL.fullmatch(soql.strip())
        if asked is None:
            raise QueryError("unexpected token")
        names = [name.strip() for name in asked["fields"].split(",")]
        conditions = _conditions(asked["where"] or "")
        with self._lock:
            records = self._records.get(asked["object"], {})
            found = [
                record
                for record in records.values()
                if (deleted_too or not record["IsDeleted"])
                and all(str(record.get(name)) in values for name, values in conditions)
            ]
            if asked["order"]:
                found.sort(key=lambda record: str(record.get(asked["order"])))
            if asked["limit"]:
                found = found[: int(asked["limit"])]
            return [_shown(asked["object"], record, names) for record in found]

    def reset(self) -> None:
        """Forget all records."""
        with self._lock:
            self._records.clear()


def record_id(prefix: str, number: int) -> str:
    """An id as Salesforce makes them: 15 characters and the checksum for case-blind systems."""
    short = f"{prefix}{number:012}"
    checks = []
    for start in range(0, 15, 5):
        bits = sum(1 << n for n, letter in enumerate(short[start : start + 5]) if letter.isupper())
        checks.append(_CHECKSUM[bits])
    return short + "".join(checks)


def _conditions(where: str) -> list[tuple[str, set[str]]]:
    conditions = []
    for name, values in _IN.findall(where):
        conditions.append((name, {value.strip().strip("'") for value in values.split(",")}))
    rest = _IN.sub("", where)
    conditions += [(name, {value}) for name, value in _EQUALS.findall(rest)]
    if re.sub(r"\bAND\b|\s", "", _EQUALS.sub("", rest), flags=re.IGNORECASE):
        raise QueryError("unexpected token in WHERE")
    return conditions


def _shown(object_type: str, record: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    url = f"/services/data/v62.0/sobjects/{object_type}/{record['Id']}"
    return {
        "attributes": {"type": object_type, "url": url},
        **{name: record.get(name) for name in names},
    }


def _instant() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "+0000"
