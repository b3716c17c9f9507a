"""Writes and reads the pieces of SQL Server's wire protocol that the stand-in needs.

Source: [MS-TDS] 2.2.5 to 2.2.7.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

_COLLATION = b"\x09\x04\xd0\x00\x34"
_VERSION = bytes([16, 0, 3, 232])
_DONE, _DONE_PROC, _DONE_IN_PROC, _RETURN_STATUS = 0xFD, 0xFE, 0xFF, 0x79
_ERROR, _ENVIRONMENT, _LOGIN_ACK, _COLUMNS, _ROW = 0xAA, 0xE3, 0xAD, 0x81, 0xD1
_INT, _FLOAT, _NVARCHAR, _VARBINARY = 0x26, 0x6D, 0xE7, 0xA5
_TEXT_TYPES, _NUMBER_TYPES, _DECIMAL_TYPES = (0xE7, 0xEF, 0xA7), (0x26, 0x68, 0x6D), (0x6A, 0x6C)
_ENDLESS = 0xFFFF
_TRANSACTION_ID = struct.pack("<Q", 1)


def prelogin() -> bytes:
    """This version, and no encryption."""
    options = struct.pack(">BHHBHHB", 0, 11, 6, 1, 17, 1, 255)
    return options + _VERSION + b"\0\0" + b"\x02"


def login_password(body: bytes) -> str:
    """The password of a LOGIN7 message, which is only disguised there."""
    offset, length = struct.unpack("<HH", body[44:48])
    disguised = body[offset : offset + 2 * length]
    plain = bytes((((b ^ 0xA5) << 4) | ((b ^ 0xA5) >> 4)) & 0xFF for b in disguised)
    return plain.decode("utf-16-le", "replace")


def logged_in() -> bytes:
    """Database, collation and packet size, and that the login is good."""
    ack = b"\x01" + b"\x74\x00\x00\x04" + _short("Microsoft SQL Server") + _VERSION
    return (
        _environment(1, _short("sandbox") + _short("master"))
        + _environment(7, b"\x05" + _COLLATION + b"\0")
        + _environment(4, _short("4096") + _short("4096"))
        + bytes([_LOGIN_ACK])
        + struct.pack("<H", len(ack))
        + ack
        + done()
    )


def transaction(request: int, *, begins_another: bool) -> bytes:
    """That a transaction began (5), was committed (7) or rolled back (8)."""
    begun = _environment(8, b"\x08" + _TRANSACTION_ID + b"\0")
    if request == 5:
        return begun
    ended = _environment(9 if request == 7 else 10, b"\0\x08" + _TRANSACTION_ID)
    return ended + begun if begins_another else ended


def done(count: int = 0, *, status: int = 0x10) -> bytes:
    """The end of a statement's answer."""
    return struct.pack("<BHHQ", _DONE, status, 0xC1, count)


def error(number: int, told: str, *, severity: int = 16) -> bytes:
    """An error by its number."""
    content = struct.pack("<IBB", number, 1, severity) + _long(told) + _short("sandbox")
    content += _short("") + struct.pack("<I", 1)
    return bytes([_ERROR]) + struct.pack("<H", len(content)) + content


def rows(names: Sequence[str], found: Sequence[Sequence[Any]]) -> bytes:
    """A result set; a column's type is that of its values."""
    kinds = [_kind([row[index] for row in found]) for index in range(len(names))]
    parts = [struct.pack("<BH", _COLUMNS, len(names))]
    for name, kind in zip(names, kinds, strict=True):
        parts.append(struct.pack("<IH", 0, 9) + _TYPES[kind] + _short(name))
    for row in found:
        parts.append(bytes([_ROW]))
        parts += [_cell(value, kind) for value, kind in zip(row, kinds, strict=True)]
    return b"".join(parts)


def as_call_answer(answer: bytes) -> bytes:
    """A statement's answer as that of a procedure that executed it."""
    status = struct.unpack("<H", answer[-12:-10])[0]
    inner = answer[:-13] + struct.pack("<BH", _DONE_IN_PROC, status | 1) + answer[-10:]
    returned = struct.pack("<Bi", _RETURN_STATUS, 0)
    return inner + returned + struct.pack("<BHHQ", _DONE_PROC, 0, 0xC1, 0)


def read_call(body: bytes) -> tuple[str, dict[str, Any]]:
    """The statement and the parameters of a call of sp_executesql."""
    length = struct.unpack("<H", body[:2])[0]
    at = (4 if length == _ENDLESS else 2 + 2 * length) + 2
    found: list[tuple[str, Any]] = []
    while at < len(body):
        name_length = body[at]
        name = body[at + 1 : at + 1 + 2 * name_length].decode("utf-16-le")
        at += 2 + 2 * name_length
        value, at = _parameter(body, at)
        found.append((name.lstrip("@"), value))
    return found[0][1], dict(found[2:])


def _parameter(body: bytes, at: int) -> tuple[Any, int]:
    kind, at = body[at], at + 1
    if kind in _TEXT_TYPES or kind == _VARBINARY:
        longest = struct.unpack("<H", body[at : at + 2])[0]
        at += 2 if kind == _VARBINARY else 7
        raw, at = _pieces(body, at) if longest == _ENDLESS else _counted(body, at)
        if raw is None or kind == _VARBINARY:
            return raw, at
        return raw.decode("cp1252" if kind == 0xA7 else "utf-16-le"), at
    if kind in _NUMBER_TYPES:
        length = body[at + 1]
        raw = body[at + 2 : at + 2 + length]
        at += 2 + length
        if not length:
            return None, at
        if kind == _FLOAT:
            return struct.unpack("<d" if length == 8 else "<f", raw)[0], at
        return int.from_bytes(raw, "little", signed=kind == _INT), at
    if kind in _DECIMAL_TYPES:
        scale, length = body[at + 2], body[at + 3]
        raw = body[at + 4 : at + 4 + length]
        number = int.from_bytes(raw[1:], "little") * (1 if raw[:1] == b"\x01" else -1)
        return (number / 10**scale if length else None), at + 4 + length
    raise ValueError(f"a parameter of the type {kind:#x}")


def _pieces(body: bytes, at: int) -> tuple[bytes | None, int]:
    total = struct.unpack("<Q", body[at : at + 8])[0]
    at += 8
    if total == 2**64 - 1:
        return None, at
    content = b""
    while length := struct.unpack("<I", body[at : at + 4])[0]:
        content += body[at + 4 : at + 4 + length]
        at += 4 + length
    return content, at + 4


def _counted(body: bytes, at: int) -> tuple[bytes | None, int]:
    length = struct.unpack("<H", body[at : at + 2])[0]
    if length == _ENDLESS:
        return None, at + 2
    return body[at + 2 : at + 2 + length], at + 2 + length


_TYPES = {
    int: bytes([_INT, 8]),
    float: bytes([_FLOAT, 8]),
    bytes: bytes([_VARBINARY]) + struct.pack("<H", 8000),
    str: bytes([_NVARCHAR]) + struct.pack("<H", 8000) + _COLLATION,
}


def _kind(values: Sequence[Any]) -> type:
    known = [value for value in values if value is not None]
    for kind, accepted in ((int, int), (float, (int, float)), (bytes, bytes)):
        if known and all(isinstance(value, accepted) for value in known):
            return kind
    return str


def _cell(value: Any, kind: type) -> bytes:
    if kind is int:
        return b"\0" if value is None else b"\x08" + struct.pack("<q", value)
    if kind is float:
        return b"\0" if value is None else b"\x08" + struct.pack("<d", value)
    if value is None:
        return b"\xff\xff"
    raw = value if kind is bytes else str(value).encode("utf-16-le")
    return struct.pack("<H", len(raw)) + raw


def _environment(kind: int, content: bytes) -> bytes:
    return bytes([_ENVIRONMENT]) + struct.pack("<HB", len(content) + 1, kind) + content


def _short(text: str) -> bytes:
    return bytes([len(text)]) + text.encode("utf-16-le")


def _long(text: str) -> bytes:
    return struct.pack("<H", len(text)) + text.encode("utf-16-le")
