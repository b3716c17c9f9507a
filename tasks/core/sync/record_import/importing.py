"""Checks what rows and messages hold, and sends what is good to the application in batches.

An entry is a row or a message. It holds one record, or a file of records. Whatever is good goes
in; an entry of which anything did not is bad, and its reason says how much did.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import orjson
from pydantic import BaseModel

from blocks.errors import BadPayloadError
from tasks.core.formats.records.formats import FileFormat
from tasks.core.formats.records.reading import detect_format, read_records
from tasks.core.formats.records.record import Record, Reject
from tasks.core.formats.records.validation import RecordValidator, Valid
from tasks.core.sync.batches.result import REJECTS_SHOWN, BatchResult, Counts, RejectedRecord
from tasks.core.sync.batches.sender import BatchSender
from tasks.core.sync.batches.sink import RecordSink, Refused

_MAX_NAMED = 3
_NO_VALUES: Mapping[str, Any] = {}

Item: TypeAlias = "Valid[BaseModel] | Reject"


class ImportItem(NamedTuple):
    """One row or message.

    Attributes:
        name: What people know it by: the row's key, the message's id, with the file's name.
        identity: The same when it is taken again, and another for everything else: the root of
            idempotency keys.
        content: A record's values; or the bytes of its JSON, or of the file.
        file_name: Tells the format of a file.
    """

    name: str
    identity: str
    content: Mapping[str, Any] | bytes
    file_name: str = ""


class RecordImporter:
    """Imports entries of one source as records of one model.

    Args:
        sink: Takes the records.
        model: What a record must be; its JSON form is what the application gets.
        system: Where entries come from, for errors.
        columns: The source's column names to the model's field names, where they differ.
        decimal_comma: Numbers in texts are written as 1.234,50.
        empty_texts: What the source writes for no value.
        holds_files: Entries hold files of records.
        file_format: How these are read; None: by their names.
        batch_size: Records a call of the sink.
    """

    def __init__(
        self,
        sink: RecordSink,
        model: type[BaseModel],
        *,
        system: str,
        columns: Mapping[str, str] | None = None,
        decimal_comma: bool = False,
        empty_texts: Sequence[str] = ("",),
        holds_files: bool = False,
        file_format: FileFormat | None = None,
        batch_size: int = 500,
    ) -> None:
        self._sender = BatchSender(sink, model)
        self._system = system
        self._validator: RecordValidator[BaseModel] = RecordValidator(
            model, columns=columns, decimal_comma=decimal_comma, empty_texts=empty_texts
        )
        self._holds_files = holds_files
        self._file_format = file_format
        self._batch_size = batch_size

    def take(self, entries: Sequence[ImportItem]) -> BatchResult:
        """Import entries; each that is in neither `bad` nor lost to an error is in the application.

        Raises:
            IntegrationError: Of the sink, but for records that it refuses by name. What it took
                before stays, and taking the same entries again has no second effect.
        """
        taken = BatchResult()
        if self._holds_files:
            for position, entry in enumerate(entries):
                self._take_file(taken, position, entry)
        else:
            self._take_records(taken, entries)
        return taken

    def _take_records(self, taken: BatchResult, entries: Sequence[ImportItem]) -> None:
        # a record's line is its entry's position, counted from 1
        items = self._validator.validate(_records(entries))
        for number, batch in enumerate(_batches(items, self._batch_size)):
            identities = [entries[item.line - 1].identity for item in batch]
            for reject in self._send(taken, [f"{number}", *identities], batch):
                position = reject.line - 1
                told = f"{reject.column}: {reject.reason}".removeprefix(": ")
                taken.bad[position] = told
                _note(taken, entries[position].name, reject._replace(line=0))

    def _take_file(self, taken: BatchResult, position: int, entry: ImportItem) -> None:
        rejects: list[Reject] = []
        rejected, before = 0, taken.counts.records
        try:
            for number, batch in enumerate(_batches(self._items_of(entry), self._batch_size)):
                found = self._send(taken, [f"{number}", entry.identity], batch)
                rejected += len(found)
                rejects += found[: REJECTS_SHOWN - len(rejects)]
        except BadPayloadError as exc:
            taken.bad[position] = _told(taken.counts.records - before, [exc.message])
            taken.counts += Counts(rejected=1)
            _note(taken, entry.name, Reject(exc.line or 0, "", exc.message, _NO_VALUES))
            return
        if rejected:
            reasons = [f"line {each.line} {each.column}: {each.reason}" for each in rejects]
            taken.bad[position] = _told(taken.counts.records - before, reasons, rejected)
        for reject in rejects:
            _note(taken, entry.name, reject)

    def _items_of(self, entry: ImportItem) -> Iterator[Item]:
        if not isinstance(entry.content, bytes):
            raise _not_bytes(self._system, entry.name)
        file_format = self._file_format or detect_format(entry.file_name, system=self._system)
        with tempfile.TemporaryDirectory(prefix="import-") as directory:
            path = Path(directory) / "content"  # its name comes from a stranger
            path.write_bytes(entry.content)
            records = read_records(path, file_format, system=self._system, name=entry.name)
            try:
                yield from self._validator.validate(records)
            finally:
                records.close()

    def _send(
        self, taken: BatchResult, identities: Sequence[str], batch: Sequence[Item]
    ) -> list[Reject]:
        """Send what is valid; records that the application refuses by name are rejects, too."""
        rejects = [item for item in batch if isinstance(item, Reject)]
        valid = [item for item in batch if isinstance(item, Valid)]

        def refuse(refused: Refused) -> None:
            for index, (column, reason) in refused.items():
                item = valid[index]
                rejects.append(Reject(item.line, column, reason, _NO_VALUES, item.page))

        taken.counts += Counts(rejected=len(rejects)) + self._sender.send(
            self._sender.encode([each.item for each in valid]),
            count=len(valid),
            key_of=lambda digest: _idempotency_key(identities, digest),
            refuse=refuse,
        )
        return rejects


def _records(entries: Iterable[ImportItem]) -> Iterator[Record | Reject]:
    for line, entry in enumerate(entries, 1):
        content = entry.content
        if isinstance(content, bytes):
            try:
                content = orjson.loads(content)
            except orjson.JSONDecodeError as exc:
                yield Reject(line, "", f"is not JSON: {exc.msg}", _NO_VALUES)
                continue
        if isinstance(content, Mapping):
            yield Record(line, content)
        else:
            yield Reject(line, "", "is no JSON object", _NO_VALUES)


def _batches(items: Iterator[Item], size: int) -> Iterator[list[Item]]:
    for first in items:
        yield [first, *islice(items, size - 1)]


def _idempotency_key(identities: Iterable[str], records_digest: str) -> str:
    """The same for the same records of the same entries, whoever takes them again."""
    digest = hashlib.sha256()
    for part in chain(identities, (records_digest,)):
        digest.update(f"{len(part)}:{part}".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:40]


def _note(taken: BatchResult, name: str, reject: Reject) -> None:
    taken.reject(RejectedRecord(name, reject.column, reject.reason, reject.line, reject.page))


def _told(imported: int, reasons: Sequence[str], count: int = 1) -> str:
    more = f"; and {count - _MAX_NAMED} more" if count > _MAX_NAMED else ""
    return f"{imported} records imported, {count} not: {'; '.join(reasons[:_MAX_NAMED])}{more}"


def _not_bytes(system: str, name: str) -> BadPayloadError:
    return BadPayloadError("holds no file", system=system, operation="read", record=name)
