"""Reads any supported file into an iterator of uniform records, with clear errors."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from tasks.core.formats.records.budget import ByteStream
from tasks.core.formats.records.compression import open_unpacked, seekable
from tasks.core.formats.records.csv_reader import read_csv
from tasks.core.formats.records.formats import (
    CsvFormat,
    FileFormat,
    JsonFormat,
    JsonLinesFormat,
    PdfFormat,
    XlsxFormat,
    XmlFormat,
)
from tasks.core.formats.records.json_reader import read_json, read_json_lines
from tasks.core.formats.records.record import Record, Reject
from tasks.core.formats.records.source import Source
from tasks.core.formats.records.table import Table

_FORMATS: dict[str, FileFormat] = {
    "csv": CsvFormat(),
    "tsv": CsvFormat(delimiter="tab"),
    "xml": XmlFormat(),
    "json": JsonFormat(),
    "jsonl": JsonLinesFormat(),
    "ndjson": JsonLinesFormat(),
    "xlsx": XlsxFormat(),
    "pdf": PdfFormat(),
}
_PACKED = (".gz", ".zip")


def read_records(path: Path, file_format: FileFormat, *, system: str, name: str) -> Records:
    """Read a file's records one at a time, in constant memory.

    Exception: a sheet is held in memory as a whole. A packed sheet or PDF is unpacked to disk.

    Args:
        path: The file on this machine.
        file_format: How to read it, e.g. `detect_format(name)`.
        system: Where it came from, for errors.
        name: Its path there, for errors.

    Returns:
        An iterator of `Record` and, for rows that cannot be split into cells, `Reject`.
        Iterating raises `BadPayloadError` where the rest of the file cannot be read; what was
        yielded before is valid. The file is closed at the end and by `close`.
    """
    return Records(path, file_format, Source(system, name))


def detect_format(name: str, *, system: str = "file") -> FileFormat:
    """Return the format for a file's name, with default options; .gz and .zip are ignored.

    Raises:
        BadPayloadError: The name has no supported extension.
    """
    bare = name.lower()
    for suffix in _PACKED:
        bare = bare.removesuffix(suffix)
    extension = bare.rpartition(".")[2]
    if "." in bare and extension in _FORMATS:
        return _FORMATS[extension]
    raise Source(system, name).bad(
        f"the name tells no format; set the format, or have it end in one of "
        f"{', '.join('.' + known for known in _FORMATS)}, with .gz or .zip after it if packed"
    )


class Records(Iterator[Record | Reject]):
    """The records of one file, which is opened at first use."""

    def __init__(self, path: Path, file_format: FileFormat, source: Source) -> None:
        self._header = _Header(source)
        self._steps = _steps(path, file_format, self._header)

    @property
    def source(self) -> Source:
        """The file, or the archive and the file in it, for errors."""
        return self._opened().source

    @property
    def columns(self) -> tuple[str, ...] | None:
        """The columns as named in the header; None for formats without a header."""
        return self._opened().columns

    @property
    def header_line(self) -> int | None:
        """The line or row of the header, if there is one."""
        return self._opened().line

    def keyed_by(self, keys: Sequence[str]) -> Iterator[Record | Reject]:
        """Return the records with other keys for their values.

        Args:
            keys: One for each column, all different; must be set before the first record.

        Returns:
            The bare iterator, which saves a Python call for each record.
        """
        self._opened().keys = keys
        return self._steps

    def close(self) -> None:
        """Close the file; needed only if not all records are read."""
        self._steps.close()

    def __next__(self) -> Record | Reject:
        self._opened()
        return next(self._steps)

    def _opened(self) -> _Header:
        if not self._header.is_read:
            next(self._steps, None)
        return self._header


class _Header:
    """What is known about a file once it is open."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.columns: tuple[str, ...] | None = None
        self.line: int | None = None
        self.keys: Sequence[str] = ()
        self.is_read = False


_HEADER_IS_READ = Reject(0, "", "", {})


def _steps(
    path: Path, file_format: FileFormat, header: _Header
) -> Generator[Record | Reject, None, None]:
    """Read the header, pause once, then yield the records."""
    with ExitStack() as opened:
        stream, header.source = opened.enter_context(
            open_unpacked(path, file_format, header.source)
        )
        table = _table(stream, file_format, header.source, opened)
        header.columns = table.columns
        header.line = table.header_line
        header.keys = table.columns or ()
        header.is_read = True
        yield _HEADER_IS_READ
        yield from table.records(header.keys)


def _table(stream: ByteStream, file_format: FileFormat, source: Source, opened: ExitStack) -> Table:
    # Some formats' libraries take long to import; a CSV import does not need them.
    match file_format:
        case CsvFormat():
            return read_csv(stream, file_format, source)
        case JsonFormat():
            return read_json(stream, file_format, source)
        case JsonLinesFormat():
            return read_json_lines(stream, file_format, source)
        case XmlFormat():
            from tasks.core.formats.records.xml_reader import read_xml

            return read_xml(stream, file_format, source)
        case XlsxFormat():
            from tasks.core.formats.records.xlsx_reader import read_xlsx

            return read_xlsx(opened.enter_context(seekable(stream, source)), file_format, source)
        case PdfFormat():
            from tasks.core.formats.records.pdf_reader import read_pdf

            return read_pdf(opened.enter_context(seekable(stream, source)), file_format, source)
