"""A bound on what one record may take, so that no file can fill the memory."""

from __future__ import annotations

from typing import Protocol

from tasks.core.formats.records.source import Source

CHUNK_BYTES = 64 * 1024


class ByteStream(Protocol):
    """What readers need of an opened file."""

    def read(self, size: int = ..., /) -> bytes:
        """Up to `size` bytes; none at the end."""
        ...


class RecordBudget:
    """A stream that refuses to go on once a single record has taken too many bytes.

    It is precise to a chunk: the bytes are counted as they are read, not as they are parsed.
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
        """Start the count anew for the record that begins at this line."""
        self._line = line
        self._record_bytes = 0

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes, and never more than a chunk; none at the end.

        Raises:
            BadPayloadError: The record has grown too large, or the file holds nothing.
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
