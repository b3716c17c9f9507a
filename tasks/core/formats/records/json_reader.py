"""JSON arrays and JSON Lines of any size in constant memory; decimal numbers stay exact."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from itertools import chain
from typing import Any, NoReturn

from tasks.core.formats.records.budget import CHUNK_BYTES, ByteStream, RecordBudget
from tasks.core.formats.records.formats import JsonFormat, JsonLinesFormat
from tasks.core.formats.records.record import Record, Reject
from tasks.core.formats.records.source import Source
from tasks.core.formats.records.table import Table
from tasks.core.formats.records.text import decoded_lines, decoded_text

# Beyond a float's range nobody means it, and int(Decimal("1e999999999")) never ends.
_MAX_EXPONENT = 400
# Of those that make sense only as a whole, such as false or a \\u escape; strings tell at once.
_LONGEST_TOKEN = 16
_ESCAPE = "\\u"
_WHITESPACE = re.compile(r"[ \t\r\n]*")


def read_json_lines(stream: ByteStream, options: JsonLinesFormat, source: Source) -> Table:
    """Read one object a line; a line that is not JSON, or no object, becomes a `Reject`.

    Raises:
        BadPayloadError: While reading: the file is empty, no text, or a line is too long.

    Source: https://jsonlines.org
    """
    budget = RecordBudget(
        stream, options.max_record_bytes, source, likely_cause="a missing line break"
    )

    def records(_keys: object) -> Iterator[Record | Reject]:
        lists = decoded_lines(budget, options.encoding, source)
        for line, text in enumerate(chain.from_iterable(lists), 1):
            budget.begin_record(line)
            if not text.isspace():
                yield _line_record(line, text)

    return Table(None, records)


def read_json(stream: ByteStream, options: JsonFormat, source: Source) -> Table:
    """Read the objects of an array, one at a time; an element that is no object is rejected.

    Raises:
        BadPayloadError: While reading: the file is empty, no text, no JSON, or has no array at
            the record path; an element is too large.

    Source: RFC 8259
    """
    budget = RecordBudget(
        stream, options.max_record_bytes, source, likely_cause="a missing quote or bracket"
    )
    path = [key for key in options.record_path.split("/") if key]
    return Table(None, lambda _keys: _Document(budget, options, source).records(path))


class _Document:
    """Parses a JSON text in chunks, holding one value at a time."""

    def __init__(self, budget: RecordBudget, options: JsonFormat, source: Source) -> None:
        self._budget = budget
        self._source = source
        self._chunks = decoded_text(budget, options.encoding, source)
        self._text = ""
        self._place = 0
        self._line = 1
        self._counted_to = 0
        self._has_escapes = False  # in the value read last

    def records(self, path: list[str]) -> Iterator[Record | Reject]:
        """Yield the elements of the array at the path; the text around it is checked too."""
        for depth, key in enumerate(path):
            self._enter(key, path[:depth])
        if self._peek() != "[":
            raise self._no_array(path)
        self._place += 1
        if self._peek() == "]":
            self._place += 1
        else:
            yield from self._elements()
        for _ in path:
            self._leave_object()
        if self._peek():
            self._malformed("has text after its end")

    def _elements(self) -> Iterator[Record | Reject]:
        while True:
            self._peek()
            line = self._line_here()
            self._budget.begin_record(line)
            value = self._value()
            yield _record(line, value, self._has_escapes)
            if self._take(",]") == "]":
                return

    def _enter(self, wanted: str, path: list[str]) -> None:
        """Advance to the value of a key of the object that starts here."""
        keys: list[str] = []
        if self._peek() != "{":
            raise self._no_array([*path, wanted])
        self._place += 1
        while self._peek() == '"':
            key = self._value()
            self._take(":")
            if key == wanted:
                return
            keys.append(key)
            self._value()
            if self._take(",}") == "}":
                break
        raise self._source.bad(
            f"has no key {wanted!r} at {'/'.join(path) or 'its top level'}, but "
            f"{', '.join(map(repr, keys[:20])) or 'none'}; set record_path to the keys that lead "
            "to the array of records"
        )

    def _leave_object(self) -> None:
        """Advance past the end of the object whose value was just read."""
        while self._take(",}") == ",":
            if self._peek() != '"':
                self._malformed("has no key where one must be")
            self._value()
            self._take(":")
            self._value()

    def _value(self) -> Any:
        """Read the value that starts here."""
        self._peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._place)
            except RecursionError:
                self._malformed("is nested too deeply")
            except ValueError as exc:
                if self._may_go_on(exc) and self._more():
                    continue
                self._place = getattr(exc, "pos", self._place)
                self._malformed(f"is not JSON ({_reason(exc)})", exc)
            # A number at the end of a chunk may continue in the next one.
            if end < len(self._text) or not self._more():
                self._has_escapes = self._text.find(_ESCAPE, self._place, end) >= 0
                self._place = end
                return value

    def _may_go_on(self, exc: ValueError) -> bool:
        """Return whether the value may just be incomplete in this chunk."""
        if not isinstance(exc, json.JSONDecodeError):
            return False
        near_end = exc.pos > len(self._text) - _LONGEST_TOKEN
        return near_end or exc.msg.startswith("Unterminated string")

    def _take(self, expected: str) -> str:
        """Consume one of the expected characters."""
        found = self._peek()
        if not found or found not in expected:
            wanted = " or ".join(map(repr, expected))
            self._malformed(f"is not JSON (expected {wanted})")
        self._place += 1
        return found

    def _peek(self) -> str:
        """Advance to the next character that is not white space; "" at the end."""
        while True:
            match = _WHITESPACE.match(self._text, self._place)
            self._place = match.end() if match else self._place
            if self._place < len(self._text):
                return self._text[self._place]
            if not self._more():
                return ""

    def _more(self) -> bool:
        """Drop what was parsed and read at least as much as is left."""
        self._line_here()
        held = self._text[self._place :]
        parts = [held]
        wanted = max(CHUNK_BYTES, len(held))
        for chunk in self._chunks:
            parts.append(chunk)
            wanted -= len(chunk)
            if wanted <= 0:
                break
        self._text = "".join(parts)
        self._place = self._counted_to = 0
        return len(self._text) > len(held)

    def _line_here(self) -> int:
        self._line += self._text.count("\n", self._counted_to, self._place)
        self._counted_to = self._place
        return self._line

    def _no_array(self, path: list[str]) -> Exception:
        where = f"at {'/'.join(path)!r}" if path else "at its top level"
        return self._source.bad(
            f"has no array {where}; set record_path to the keys that lead to the array of records",
            line=self._line_here(),
        )

    def _malformed(self, what: str, cause: Exception | None = None) -> NoReturn:
        raise self._source.bad(
            f"{what}; if it ends too early the transfer was cut: have the sender write it again",
            line=self._line_here(),
        ) from cause


def _line_record(line: int, text: str) -> Record | Reject:
    try:
        value = _DECODER.decode(text)
    except RecursionError:
        return Reject(line, "", "is nested too deeply", {})
    except ValueError as exc:
        column = f" at column {exc.colno}" if isinstance(exc, json.JSONDecodeError) else ""
        return Reject(line, "", f"is not JSON ({_reason(exc)}{column})", {"line": text})
    return _record(line, value, _ESCAPE in text)


def _record(line: int, value: Any, has_escapes: bool) -> Record | Reject:
    if has_escapes and not _is_text(value):
        return Reject(line, "", "holds half a surrogate pair, which is no character", {})
    if isinstance(value, dict):
        return Record(line, value)
    return Reject(line, "", "is not a JSON object", {"value": value})


def _is_text(value: Any) -> bool:
    """Return whether all strings are encodable; only escapes can produce one that is not."""
    try:
        json.dumps(value, ensure_ascii=False, default=str).encode()
    except (UnicodeEncodeError, RecursionError):
        return False
    return True


def _reason(exc: ValueError) -> str:
    if isinstance(exc, json.JSONDecodeError):
        return exc.msg.removesuffix(" at").lower()
    return "a number is out of range"


def _decimal(text: str) -> Decimal:
    try:
        number = Decimal(text)
    except InvalidOperation as exc:
        raise ValueError("out of range") from exc
    if abs(number.adjusted()) > _MAX_EXPONENT:
        raise ValueError("out of range")
    return number


def _not_a_number(_text: str) -> NoReturn:
    raise ValueError("out of range")  # NaN and Infinity are not JSON


_DECODER = json.JSONDecoder(parse_float=_decimal, parse_constant=_not_a_number)
