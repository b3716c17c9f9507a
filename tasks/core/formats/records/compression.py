"""Unpacks gzip and zip files while they are read; refuses bombs and ambiguous archives."""

from __future__ import annotations

import fnmatch
import gzip
import lzma
import re
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from blocks.errors import BadPayloadError, MisconfiguredError
from tasks.core.formats.records.budget import CHUNK_BYTES, ByteStream
from tasks.core.formats.records.formats import FileFormat
from tasks.core.formats.records.source import Source

# What damaged and unsupported archives make the standard library raise.
UNZIP_ERRORS = (
    EOFError,
    NotImplementedError,
    OSError,
    RuntimeError,
    ValueError,
    lzma.LZMAError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)
_GZIP_MAGIC = b"\x1f\x8b"
_ZIP_MAGICS = (b"PK\x03\x04", b"PK\x05\x06")  # of an archive, and of one without files
_WORKBOOK_PART = "[Content_Types].xml"
_RATIO_FREE_BYTES = 32 * 1024 * 1024
_FLAG_ENCRYPTED = 0x1
_MAX_LISTED = 10
# Absolute, with a drive, or with a ".." part, by either system's rules.
_UNSAFE_NAME = re.compile(r"^[/\\]|^[A-Za-z]:|(^|[/\\])\.\.([/\\]|$)")
# Folders, and what file managers leave in archives.
_JUNK_NAME = re.compile(r"/$|^__MACOSX/|(^|/)(\.DS_Store|Thumbs\.db|desktop\.ini)$")


@contextmanager
def open_unpacked(
    path: Path, options: FileFormat, source: Source
) -> Iterator[tuple[ByteStream, Source]]:
    """Open a file for reading its content, whether it is packed or not.

    Yields:
        The bytes as a stream, and the source with the archive's member added.

    Raises:
        BadPayloadError: It is too large, packed differently than configured, damaged, encrypted,
            or not exactly one file of the archive matches; reads raise it too.
    """
    with path.open("rb") as file:
        packing = _packing(file, options)
        size = path.stat().st_size
        if packing == "gzip":
            with gzip.GzipFile(fileobj=file) as unzipping:
                yield _Unpacked(unzipping, size, options, source), source
        elif packing == "zip":
            with _refusing_damage("zip", source), zipfile.ZipFile(file) as archive:
                member = _member(archive, options, source)
                inner = Source(source.system, f"{source.name}/{member.filename}")
                stream = archive.open(member)
            with stream:
                yield _Unpacked(stream, member.compress_size, options, inner), inner
        else:
            if size > options.max_bytes:
                raise _too_large(options, source)
            yield file, source


@contextmanager
def seekable(stream: ByteStream, source: Source) -> Iterator[BinaryIO]:
    """Yield the same bytes as a seekable file, on disk if it was packed.

    Raises:
        BadPayloadError: There are no bytes.
        MisconfiguredError: The disk has no room for them.
    """
    if not isinstance(stream, _Unpacked):
        file = cast("BinaryIO", stream)
        yield _not_empty(file, source)
        return
    with tempfile.TemporaryFile() as file:
        try:
            while chunk := stream.read(CHUNK_BYTES):
                file.write(chunk)
            file.flush()
        except OSError as exc:
            raise MisconfiguredError(
                f"there is no room to unpack it in {tempfile.gettempdir()} ({exc.strerror}); make "
                "room, or set TMPDIR to a folder that has some",
                system=source.system,
                operation="read",
                record=source.name,
            ) from exc
        file.seek(0)
        yield _not_empty(file, source)


class _Unpacked:
    """Reads unpacked bytes and stops at a limit, at a bomb and at damage."""

    def __init__(
        self, stream: ByteStream, packed_bytes: int, options: FileFormat, source: Source
    ) -> None:
        self._stream = stream
        self._packed_bytes = packed_bytes
        self._options = options
        self._source = source
        self._unpacked_bytes = 0

    def read(self, size: int = CHUNK_BYTES, /) -> bytes:
        with _refusing_damage("packed", self._source):
            chunk = self._stream.read(size)
        self._unpacked_bytes += len(chunk)
        if self._unpacked_bytes > self._options.max_bytes:
            raise _too_large(self._options, self._source)
        ratio = self._options.max_unpack_ratio
        if self._unpacked_bytes > max(_RATIO_FREE_BYTES, ratio * self._packed_bytes):
            raise self._source.bad(
                f"unpacks to more than {ratio} times its packed size of {self._packed_bytes:,} "
                "bytes, as decompression bombs do; raise max_unpack_ratio if that is meant"
            )
        return chunk


@contextmanager
def _refusing_damage(what: str, source: Source) -> Iterator[None]:
    try:
        yield
    except EOFError as exc:
        raise source.bad(
            "ends too early; the transfer was cut: have the sender send it again"
        ) from exc
    except UNZIP_ERRORS as exc:
        raise source.bad(
            f"its {what} data is damaged ({exc}); have the sender pack and send it again"
        ) from exc


def _packing(file: BinaryIO, options: FileFormat) -> str:
    if options.compression != "auto":
        return options.compression
    magic = file.read(len(_ZIP_MAGICS[0]))
    file.seek(0)
    if magic.startswith(_GZIP_MAGIC):
        return "gzip"
    if magic in _ZIP_MAGICS and not (options.kind == "xlsx" and _is_workbook(file)):
        return "zip"
    return "none"


def _is_workbook(file: BinaryIO) -> bool:
    """Return whether a zip archive is itself a workbook, rather than containing one."""
    try:
        return _WORKBOOK_PART in zipfile.ZipFile(file).namelist()
    except UNZIP_ERRORS:
        return True  # the workbook reader reports what is wrong
    finally:
        file.seek(0)


def _member(archive: zipfile.ZipFile, options: FileFormat, source: Source) -> zipfile.ZipInfo:
    """Return the archive's one file to read."""
    for member in archive.infolist():
        if _UNSAFE_NAME.search(member.filename):
            raise source.bad(
                f"holds a file named {member.filename!r}, which leads out of its folder; have the "
                "sender pack plain file names"
            )
    files = [member for member in archive.infolist() if not _JUNK_NAME.search(member.filename)]
    fitting = [
        member for member in files if fnmatch.fnmatchcase(member.filename, options.zip_member)
    ]
    if len(fitting) != 1:
        names = ", ".join(repr(member.filename) for member in (fitting or files)[:_MAX_LISTED])
        found = f"{len(fitting)} files match" if fitting else "no file matches"
        raise source.bad(
            f"{found} {options.zip_member!r} in this archive of {names or 'nothing'}; set "
            "zip_member to a pattern that only the file to read matches"
        )
    if fitting[0].flag_bits & _FLAG_ENCRYPTED:
        raise source.bad(
            f"{fitting[0].filename!r} in this archive is encrypted; have the sender pack it "
            "without a password"
        )
    return fitting[0]


def _not_empty(file: BinaryIO, source: Source) -> BinaryIO:
    if not file.read(1):
        raise source.empty()
    file.seek(0)
    return file


def _too_large(options: FileFormat, source: Source) -> BadPayloadError:
    return source.bad(
        f"is larger than {options.max_bytes:,} bytes; have the sender split it, or raise max_bytes"
    )
