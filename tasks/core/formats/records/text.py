"""Decodes bytes by the requested encoding or the one the file declares, never by a guess."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator

from tasks.core.formats.records.budget import CHUNK_BYTES, ByteStream
from tasks.core.formats.records.formats import AUTO
from tasks.core.formats.records.source import Source

# UTF-32 first: its little-endian mark starts with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_LONGEST_MARK = 4
_FAMILY_LENGTH = len("utf-16")


def decoded_text(stream: ByteStream, encoding: str, source: Source) -> Iterator[str]:
    """Yield the text in chunks, without the byte-order mark.

    Args:
        stream: Read to its end, a chunk at a time.
        encoding: A codec's name, or "auto": the byte-order mark's, else strict UTF-8.
        source: The file, for errors.

    Raises:
        BadPayloadError: The bytes are not text in that encoding; says the line.
    """
    head = b""
    while len(head) < _LONGEST_MARK and (more := stream.read(CHUNK_BYTES)):
        head += more
    codec, mark = _codec(head, encoding, source)
    decoder = codecs.getincrementaldecoder(codec)()
    line = 1
    rest = head[len(mark) :]
    ended = False
    while not ended:
        chunk, rest = rest or stream.read(CHUNK_BYTES), b""
        ended = not chunk
        try:
            text = decoder.decode(chunk, final=ended)
        except UnicodeError as exc:
            raise _undecodable(exc, codec, source, line) from exc
        if "\0" in text:
            raise source.bad(
                f"holds a NUL character, so it is no text in {codec}; if the sender writes "
                "UTF-16, set encoding to utf-16-le or utf-16-be, else it is another kind of file",
                line=line + text.count("\n", 0, text.index("\0")),
            )
        yield text
        line += text.count("\n")


def decoded_lines(stream: ByteStream, encoding: str, source: Source) -> Iterator[list[str]]:
    """Yield the lines in lists, each with its line end: LF, CR LF or CR.

    Lists are faster than single lines, because each step is a call in Python.
    """
    held: list[str] = []
    for text in decoded_text(stream, encoding, source):
        held.append(text)
        if "\n" in text or "\r" in text:
            lines = _split("".join(held))
            # A final CR may be half of a CR LF.
            held = [] if lines[-1].endswith("\n") else [lines.pop()]
            yield lines
    yield _split("".join(held))


def _split(text: str) -> list[str]:
    """Return the lines of a text; `str.splitlines` would also split at form feeds and such."""
    return list(io.StringIO(text, newline=""))


def _codec(head: bytes, encoding: str, source: Source) -> tuple[str, bytes]:
    """Return the codec to use and the byte-order mark to remove."""
    asked = "" if encoding == AUTO else codecs.lookup(encoding).name
    mark, marked = next((pair for pair in _MARKS if head.startswith(pair[0])), (b"", ""))
    if marked and asked and not asked.startswith(marked[:_FAMILY_LENGTH]):
        raise source.bad(
            f"begins with the byte-order mark of {marked}, but encoding is set to {encoding}; "
            f"set it to {AUTO}"
        )
    if asked in {"utf-16", "utf-32"} and not marked:
        raise source.bad(
            f"has no byte-order mark, so {asked} says too little; set encoding to "
            f"{asked}-le or {asked}-be"
        )
    return marked or asked or "utf-8", mark


def _undecodable(exc: UnicodeError, codec: str, source: Source, line: int) -> Exception:
    what = "holds bytes that are"
    if isinstance(exc, UnicodeDecodeError):
        before = exc.object[: exc.start].decode(codec, "ignore")
        line += before.count("\n")
        what = f"byte 0x{exc.object[exc.start]:02x} is"
    advice = (
        "windows-1252 if it comes from a Windows program" if codec == "utf-8" else "that or auto"
    )
    return source.bad(
        f"{what} not {codec}; ask which encoding the sender uses and set encoding to {advice}",
        line=line,
    )
