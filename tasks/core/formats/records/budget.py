"""Limits the size of one record, so that no file can exhaust the memory."""

from __future__ import annotations

from typing import Protocol

from tasks.core.formats.records.source import Source

CHUNK_BYTES = 64 * 1024


class ByteStream(Protocol):
    """The part of an open file that readers need."""

    def read(self, size: int = ..., /) -> bytes:
        """Return up to `size` bytes; none at the end."""
        ...


class RecordBudget:
    """A stream that fails once a single record has taken too many bytes.

    It is accurate to a chunk: bytes are counted when read, not when parsed.
    """

    def __init__(
        self, stream: ByteStream, max_record_bytes: int, source: Source, *, likely_cause: str
    ) -> None:
        self._stream = stream
        self._max_record_bytes = max_record_bytes
        self._source = source
        self._likely_cause = likely_cause
        self._line = 1
        self._record_bytes = 0
        self._is_empty = True

    def begin_record(self, line: int) -> None:
        """Restart the count for the record that starts at this line."""
        self._line = line
        self._record_bytes = 0

    def read(self, size: int = -1, /) -> bytes:
        """Return up to `size` bytes, but at most a chunk; none at the end.

        Raises:
            BadPayloadError: The record is too large, or the file is empty.
        """
        if self._record_bytes > self._max_record_bytes:
            raise self._source.bad(
                f"no record ends within {self._max_record_bytes:,} bytes from here; the cause may "
                f"be {self._likely_cause}, else raise max_record_bytes",
                line=self._line,
            )
        chunk = self._stream.read(CHUNK_BYTES if size < 0 else min(size, CHUNK_BYTES))
        if not chunk and self._is_empty:
            raise self._source.empty()
        self._is_empty = False
        self._record_bytes += len(chunk)
        return chunk
