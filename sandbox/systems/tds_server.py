"""A stand-in for SQL Server on the loopback: its wire protocol (TDS 7.4) in front of SQLite.

It shows how a driver logs in, sends statements with parameters, commits, and reports errors by
their numbers. It understands SQLite's SQL with a few of SQL Server's words translated, so it
shows nothing about T-SQL, locking or isolation.

Source: [MS-TDS], https://learn.microsoft.com/openspecs/windows_protocols/ms-tds
"""

from __future__ import annotations

import asyncio
import re
import sqlite3
import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from sandbox.systems import tds_tokens as tokens
from sandbox.systems.stand_in import StandIn
from tasks.core.connectors.folders.background_loop import BackgroundLoop

_HOST = "127.0.0.1"
_BATCH, _RPC, _ATTENTION, _TRANSACTION, _LOGIN, _PRELOGIN = 0x01, 0x03, 0x06, 0x0E, 0x10, 0x12
_ANSWER = 0x04
_PIECE_BYTES = 4088
_BEGIN, _COMMIT, _ROLLBACK = 5, 7, 8
_UNIQUE_VIOLATED, _NO_SUCH_OBJECT, _LOGIN_FAILED = 2627, 208, 18456

# statements by which clients ask what server this is
_ABOUT = (
    (r"SERVERPROPERTY", "SELECT '16.0.1000.6' AS v"),
    (r"@@VERSION", "SELECT 'Microsoft SQL Server 2022 (RTM) - 16.0.1000.6 (X64)' AS v"),
    (r"schema_name\(\)", "SELECT 'dbo' AS s"),
    (r"fn_listextendedproperty|sys\.system_views", "SELECT 1 AS x WHERE 0"),
    (r"transaction_isolation_level", "SELECT 'READ COMMITTED' AS l"),
)
_WORDS = (
    (r"\bN'", "'"),
    (r"\[([^\]]+)\]", r'"\1"'),
    (r"\s+WITH \([A-Z, ]+\)", ""),
    (r"\bdbo\.", ""),
    (r"@(\w+)", r":\1"),
    (r"SELECT\s+TOP\s*\(?\s*(:?\w+)\s*\)?\s+(.*)", r"SELECT \2 LIMIT \1"),
    (r"SELECT\s+(.*?)\s+INTO\s+(\S+)\s+FROM\s+(.*)", r"CREATE TABLE \2 AS SELECT \1 FROM \3"),
    (r"#staging", "staging"),
)


@dataclass
class TdsSandbox(StandIn):
    """A running server.

    Attributes:
        statements: What clients sent, oldest first.
        fail_next: (number, text) of errors with which the next statements are answered.
        database: What is in it, for whoever runs the server.
        port: Of 127.0.0.1.
    """

    password: str = "sandbox"  # noqa: S105 - a stand-in's, not a secret
    statements: list[str] = field(default_factory=list)
    fail_next: list[tuple[int, str]] = field(default_factory=list)
    database: sqlite3.Connection = field(
        default_factory=lambda: sqlite3.connect(
            ":memory:", isolation_level=None, check_same_thread=False
        )
    )
    port: int = 0
    _loop: BackgroundLoop = field(default_factory=lambda: BackgroundLoop("tds-sandbox"))
    _server: Any = None

    def stop(self) -> None:
        """Cut all connections and stop listening."""
        self._loop.run(self._close())
        self._loop.close()
        self.database.close()

    async def _listen(self, port: int) -> None:
        self._server = await asyncio.start_server(self._serve, _HOST, port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                kind, body = await _request(reader)
                for piece in _pieces(self._answer(kind, body)):
                    writer.write(piece)
                await writer.drain()
        writer.close()

    def _answer(self, kind: int, body: bytes) -> bytes:
        if kind == _PRELOGIN:
            return tokens.prelogin()
        if kind == _LOGIN:
            return self._log_in(body)
        if kind == _BATCH:
            return self._execute(body[_headers_length(body) :].decode("utf-16-le"), {})
        if kind == _RPC:
            statement, parameters = tokens.read_call(body[_headers_length(body) :])
            return tokens.as_call_answer(self._execute(statement, parameters))
        if kind == _TRANSACTION:
            return self._transact(body[_headers_length(body) :])
        return tokens.done(status=0x20 if kind == _ATTENTION else 0x02)

    def _log_in(self, body: bytes) -> bytes:
        if tokens.login_password(body) != self.password:
            return tokens.error(_LOGIN_FAILED, "Login failed.", severity=14) + tokens.done(status=2)
        return tokens.logged_in()

    def _transact(self, body: bytes) -> bytes:
        request = struct.unpack("<H", body[:2])[0]
        words = {_BEGIN: "BEGIN", _COMMIT: "COMMIT", _ROLLBACK: "ROLLBACK"}
        self._quietly(words[request])
        begins_another = request != _BEGIN and body[3 + body[2] :][:1] == b"\x01"
        if begins_another:
            self._quietly("BEGIN")
        return tokens.transaction(request, begins_another=begins_another) + tokens.done()

    def _execute(self, statement: str, parameters: dict[str, Any]) -> bytes:
        self.statements.append(statement)
        if self.fail_next:
            number, told = self.fail_next.pop(0)
            return tokens.error(number, told) + tokens.done(status=2)
        control = re.match(
            r"\s*(?:IF @@TRANCOUNT > 0 )?(BEGIN|COMMIT|ROLLBACK) TRAN", statement, re.IGNORECASE
        )
        if control:
            self._quietly(control[1])
            return tokens.done()
        if re.match(r"\s*(SET |USE |IF @@TRANCOUNT)", statement, re.IGNORECASE):
            return tokens.done()
        try:
            found = self.database.execute(_translated(statement), parameters)
        except sqlite3.IntegrityError as exc:
            return tokens.error(_UNIQUE_VIOLATED, str(exc), severity=14) + tokens.done(status=2)
        except sqlite3.Error as exc:
            return tokens.error(_NO_SUCH_OBJECT, str(exc)) + tokens.done(status=2)
        if found.description is None:
            return tokens.done(max(found.rowcount, 0))
        rows = found.fetchall()
        return tokens.rows([each[0] for each in found.description], rows) + tokens.done(len(rows))

    def _quietly(self, statement: str) -> None:
        with suppress(sqlite3.OperationalError):  # a transaction there is not, or is already
            self.database.execute(statement)


async def _request(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    body = b""
    while True:
        kind, status, length, _, _, _ = struct.unpack(">BBHHBB", await reader.readexactly(8))
        body += await reader.readexactly(length - 8)
        if status & 1:
            return kind, body


def _pieces(answer: bytes) -> Sequence[bytes]:
    pieces = [answer[at : at + _PIECE_BYTES] for at in range(0, len(answer) or 1, _PIECE_BYTES)]
    last = len(pieces) - 1
    return [
        struct.pack(">BBHHBB", _ANSWER, int(number == last), len(piece) + 8, 0, 1, 0) + piece
        for number, piece in enumerate(pieces)
    ]


def _headers_length(body: bytes) -> int:
    return int(struct.unpack("<I", body[:4])[0])


def _translated(statement: str) -> str:
    for pattern, about in _ABOUT:
        if re.search(pattern, statement, re.IGNORECASE):
            return about
    for pattern, word in _WORDS:
        statement = re.sub(pattern, word, statement, flags=re.IGNORECASE | re.DOTALL)
    return statement


def start(*, port: int = 0) -> TdsSandbox:
    """Start an empty server; port 0 takes a free one."""
    sandbox = TdsSandbox()
    sandbox._loop.run(sandbox._listen(port))  # noqa: SLF001 - the module's own
    return sandbox
