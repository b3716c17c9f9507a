"""TLS and logins before the Kafka cluster that has neither: every request passes through here.

Answers what concerns the login itself, passes on the rest, and tells clients its own port in
place of the broker's.

Source: https://kafka.apache.org/protocol; RFC 5802 for SCRAM.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import os
import ssl
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from sandbox.systems.stand_in import StandIn
from tasks.core.connectors.folders.background_loop import BackgroundLoop

_HOST = "127.0.0.1"
_METADATA, _FIND_COORDINATOR, _SASL_HANDSHAKE, _API_VERSIONS, _SASL_AUTHENTICATE = 3, 10, 17, 18, 36
_FIRST_FLEXIBLE_API_VERSIONS = 3
_UNSUPPORTED_MECHANISM, _AUTHENTICATION_FAILED = 33, 58
_ITERATIONS = 4096
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")


@dataclass
class KafkaGate(StandIn):
    """A running gate.

    Attributes:
        port: Of 127.0.0.1, where clients come in.
    """

    port: int = 0
    _loop: BackgroundLoop = field(default_factory=lambda: BackgroundLoop("kafka-gate"))
    _server: Any = None

    def stop(self) -> None:
        """Cut all connections and stop listening."""
        self._server.close()
        self._loop.close()

    async def _listen(
        self, broker_port: int, tls: ssl.SSLContext | None, passwords: Mapping[str, str]
    ) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            up_reader, up_writer = await asyncio.open_connection(_HOST, broker_port)
            passage = _Passage(reader, writer, up_reader, up_writer, passwords)
            with suppress(OSError, asyncio.IncompleteReadError):
                await passage.hold(broker_port, self.port)
            writer.transport.abort()
            up_writer.transport.abort()

        self._server = await asyncio.start_server(serve, _HOST, 0, ssl=tls)
        self.port = self._server.sockets[0].getsockname()[1]


def start(
    bootstrap_servers: str,
    *,
    tls: ssl.SSLContext | None = None,
    passwords: Mapping[str, str] | None = None,
) -> KafkaGate:
    """Let clients in on a free port.

    Args:
        bootstrap_servers: The one broker of the cluster.
        tls: What is presented, and whether clients must present something; None for no TLS.
        passwords: Name to password; empty where nobody has to log in.
    """
    gate = KafkaGate()
    broker_port = int(bootstrap_servers.rpartition(":")[2])
    gate._loop.run(gate._listen(broker_port, tls, passwords or {}))  # noqa: SLF001 - the module's own
    return gate


@dataclass
class _Passage:
    """One client's connection, and the one to the broker that belongs to it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    up_reader: asyncio.StreamReader
    up_writer: asyncio.StreamWriter
    passwords: Mapping[str, str]
    _asked: dict[int, tuple[int, int]] = field(default_factory=dict)

    async def hold(self, broker_port: int, own_port: int) -> None:
        """Pass on requests and answers until either side leaves."""
        answering = asyncio.create_task(self._answers(broker_port, own_port))
        try:
            await self._requests()
        finally:
            answering.cancel()

    async def _requests(self) -> None:
        login: _Login | None = None
        is_in = not self.passwords
        async for frame in _frames(self.reader):
            api, version, correlation = struct.unpack_from(">hhi", frame)
            if api == _SASL_HANDSHAKE:
                mechanism = _after_header(frame)[2:].decode()
                login = _Login(mechanism, self.passwords) if mechanism in MECHANISMS else None
                code = 0 if login else _UNSUPPORTED_MECHANISM
                names = b"".join(map(_text, MECHANISMS))
                self._answer(correlation, struct.pack(">hi", code, len(MECHANISMS)) + names)
            elif api == _SASL_AUTHENTICATE and login is not None:
                answer, is_in = login.step(_after_header(frame)[4:])
                code, reason = (0, "") if answer is not None else (_AUTHENTICATION_FAILED, "no")
                token = answer or b""
                body = struct.pack(">h", code) + _text(reason) + struct.pack(">i", len(token))
                lifetime = struct.pack(">q", 0) if version else b""
                self._answer(correlation, body + token + lifetime)
            elif is_in or api == _API_VERSIONS:
                self._asked[correlation] = api, version
                self.up_writer.write(struct.pack(">i", len(frame)) + frame)
                await self.up_writer.drain()
            else:
                return  # as a broker does

    async def _answers(self, broker_port: int, own_port: int) -> None:
        broker, own = (_HOST.encode() + struct.pack(">i", port) for port in (broker_port, own_port))
        async for frame in _frames(self.up_reader):
            [correlation] = struct.unpack_from(">i", frame)
            api, version = self._asked.pop(correlation)
            body = frame[4:]
            if api in (_METADATA, _FIND_COORDINATOR):
                body = body.replace(broker, own)
            if api == _API_VERSIONS and self.passwords:
                body = _with_login_calls(body, version)
            self._answer(correlation, body)

    def _answer(self, correlation: int, body: bytes) -> None:
        self.writer.write(struct.pack(">ii", len(body) + 4, correlation) + body)


class _Login:
    """One client that proves who it is."""

    def __init__(self, mechanism: str, passwords: Mapping[str, str]) -> None:
        self._mechanism = mechanism
        self._passwords = passwords
        self._hash = mechanism.rpartition("SCRAM-")[2].replace("-", "").lower()
        self._first = ""
        self._salted = b""

    def step(self, token: bytes) -> tuple[bytes | None, bool]:
        """What is answered, None to one who is not who it says; and whether it is let in."""
        if self._mechanism == "PLAIN":
            _, name, password = token.decode().split("\0")
            is_in = self._passwords.get(name) == password
            return (b"" if is_in else None), is_in
        return self._prove(token.decode()) if self._first else (self._challenge(token), False)

    def _challenge(self, token: bytes) -> bytes:
        bare = token.decode().removeprefix("n,,")
        asked = _attributes(bare)
        salt = os.urandom(16)
        password = self._passwords.get(asked["n"], os.urandom(8).hex())
        self._salted = hashlib.pbkdf2_hmac(self._hash, password.encode(), salt, _ITERATIONS)
        nonce = asked["r"] + os.urandom(8).hex()
        challenge = f"r={nonce},s={base64.b64encode(salt).decode()},i={_ITERATIONS}"
        self._first = f"{bare},{challenge}"
        return challenge.encode()

    def _prove(self, final: str) -> tuple[bytes | None, bool]:
        spoken = f"{self._first},{final.rpartition(',p=')[0]}".encode()
        client_key = self._mac(self._salted, b"Client Key")
        stored_key = hashlib.new(self._hash, client_key).digest()
        signature = self._mac(stored_key, spoken)
        proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        if base64.b64decode(_attributes(final)["p"]) != proof:
            return None, False
        server_signature = self._mac(self._mac(self._salted, b"Server Key"), spoken)
        return b"v=" + base64.b64encode(server_signature), True

    def _mac(self, key: bytes, content: bytes) -> bytes:
        return hmac.new(key, content, self._hash).digest()


async def _frames(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while True:
        [length] = struct.unpack(">i", await reader.readexactly(4))
        yield await reader.readexactly(length)


def _after_header(frame: bytes) -> bytes:
    """The body of a request of the old kind: behind key, version, correlation and client id."""
    [length] = struct.unpack_from(">h", frame, 8)
    return frame[10 + max(0, length) :]


def _with_login_calls(body: bytes, version: int) -> bytes:
    """The broker's calls and their versions, and those that belong to the login."""
    if body[:2] != b"\0\0":
        return body  # it cannot say it in this version; the client asks again in another
    calls = ((_SASL_HANDSHAKE, 0, 1), (_SASL_AUTHENTICATE, 0, 1))
    if version < _FIRST_FLEXIBLE_API_VERSIONS:
        [count] = struct.unpack_from(">i", body, 2)
        added = b"".join(struct.pack(">hhh", *call) for call in calls)
        return body[:2] + struct.pack(">i", count + len(calls)) + added + body[6:]
    added = b"".join(struct.pack(">hhhB", *call, 0) for call in calls)
    return body[:2] + bytes([body[2] + len(calls)]) + added + body[3:]


def _attributes(message: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in message.split(",") if "=" in part)


def _text(value: str) -> bytes:
    return struct.pack(">h", len(value)) + value.encode()
