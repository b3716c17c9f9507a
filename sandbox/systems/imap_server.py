"""A mailbox on the loopback: speaks IMAP with IDLE, MOVE and UIDPLUS, and keeps mails in memory.

It knows what clients that fetch and move mails need, and nothing else: no SEARCH criteria
but ALL, no partial FETCH but of the head, and of the flags only the one for deletion.
"""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from sandbox.systems.stand_in import StandIn
from tasks.core.connectors.folders.background_loop import BackgroundLoop

_HOST = "127.0.0.1"
_LITERAL = re.compile(rb"\{(\d+)\+?\}$")
_WORDS = re.compile(rb'"((?:[^"\\]|\\.)*)"|([^\s"]+)')


@dataclass
class Folder:
    """One folder: its mails by UID."""

    uidvalidity: int
    mails: dict[int, bytes] = field(default_factory=dict)
    deleted: set[int] = field(default_factory=set)
    next_uid: int = 1

    def add(self, raw: bytes) -> None:
        """Put a mail into it."""
        self.mails[self.next_uid] = raw
        self.next_uid += 1


@dataclass
class ImapSandbox(StandIn):
    """A running server.

    Attributes:
        username: May log in with `password`.
        folders: By name; "INBOX" is there from the start.
        capabilities: What it says it can; take "IDLE" or "MOVE" out to see clients without.
        port: Of 127.0.0.1.
    """

    username: str = "orders"
    password: str = "sandbox"  # noqa: S105 - a stand-in's, not a secret
    folders: dict[str, Folder] = field(default_factory=lambda: {"INBOX": Folder(int(time.time()))})
    capabilities: set[str] = field(default_factory=lambda: {"IDLE", "MOVE", "UIDPLUS"})
    port: int = 0
    _loop: BackgroundLoop = field(default_factory=lambda: BackgroundLoop("imap-sandbox"))
    _server: Any = None
    _arrived: Any = None

    def deliver(self, raw: bytes, *, folder: str = "INBOX") -> None:
        """A mail arrives; whoever idles is told."""
        self._loop.run(self._deliver(raw, folder))

    def count(self, folder: str) -> int:
        """How many mails lie in a folder."""
        return len(self.folders[folder].mails) if folder in self.folders else 0

    def stop(self) -> None:
        """Cut all connections and stop listening."""
        self._server.close()
        self._loop.close()

    async def _listen(self, port: int) -> None:
        self._arrived = asyncio.Condition()
        self._server = await asyncio.start_server(self._serve, _HOST, port, limit=1 << 26)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _deliver(self, raw: bytes, folder: str) -> None:
        async with self._arrived:
            self.folders[folder].add(raw)
            self._arrived.notify_all()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await _Conversation(self, reader, writer).hold()
        writer.close()


class _Conversation:
    """One client's connection."""

    def __init__(
        self, server: ImapSandbox, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._server = server
        self._reader = reader
        self._writer = writer
        self._folder: Folder | None = None
        self._is_logged_in = False

    async def hold(self) -> None:
        """Answer commands until the client leaves."""
        self._say(f"* OK [CAPABILITY {self._capabilities()}] ready")
        while command := await self._command():
            tag, name, arguments = command
            if name == "UID":
                name, arguments = f"UID_{arguments[0].upper()}", arguments[1:]
            answer = getattr(self, f"_do_{name.lower()}", None)
            if answer is None or (not self._is_logged_in and name not in _OPEN_TO_ALL):
                self._say(f"{tag} BAD not now, or not known")
            else:
                result = answer(*arguments)
                said = await result if asyncio.iscoroutine(result) else result
                self._say(f"{tag} {said}")
            await self._writer.drain()
            if name == "LOGOUT":
                return

    def _do_capability(self) -> str:
        self._say(f"* CAPABILITY {self._capabilities()}")
        return "OK done"

    def _do_login(self, username: str, password: str) -> str:
        server = self._server
        self._is_logged_in = (username, password) == (server.username, server.password)
        return "OK welcome" if self._is_logged_in else "NO wrong user or password"

    def _do_logout(self) -> str:
        self._say("* BYE")
        return "OK bye"

    def _do_noop(self) -> str:
        if self._folder is not None:
            self._say(f"* {len(self._folder.mails)} EXISTS")
        return "OK done"

    def _do_list(self, _reference: str, pattern: str) -> str:
        for name in self._server.folders:
            if pattern in ("*", name):
                self._say(f'* LIST () "/" "{name}"')
        return "OK done"

    def _do_create(self, name: str) -> str:
        if name in self._server.folders:
            return "NO it exists"
        self._server.folders[name] = Folder(int(time.time()))
        return "OK done"

    def _do_select(self, name: str) -> str:
        folder = self._server.folders.get(name)
        if folder is None:
            return "NO there is no such folder"
        self._folder = folder
        self._say(f"* {len(folder.mails)} EXISTS", "* 0 RECENT", "* FLAGS (\\Deleted)")
        self._say(f"* OK [UIDVALIDITY {folder.uidvalidity}]", f"* OK [UIDNEXT {folder.next_uid}]")
        return "OK [READ-WRITE] selected"

    def _do_append(self, name: str, *rest: str) -> str:
        if name not in self._server.folders:
            return "NO [TRYCREATE] there is no such folder"
        self._server.folders[name].add(rest[-1].encode("latin-1"))
        return "OK done"

    def _do_uid_search(self, *_criteria: str) -> str:
        self._say("* SEARCH " + " ".join(map(str, self._selected.mails)))
        return "OK done"

    def _do_uid_fetch(self, uids: str, *items: str) -> str:
        wanted = " ".join(items)
        positions = {uid: number for number, uid in enumerate(self._selected.mails, 1)}
        for uid in self._chosen(uids):
            raw = self._selected.mails[uid]
            content, name = raw, "BODY[]"
            if "HEADER" in wanted:
                content, name = raw.partition(b"\r\n\r\n")[0] + b"\r\n\r\n", "BODY[HEADER]<0>"
            head = f"* {positions[uid]} FETCH (UID {uid} RFC822.SIZE {len(raw)} {name} "
            self._writer.write(head.encode() + b"{%d}\r\n" % len(content) + content + b")\r\n")
        return "OK done"

    def _do_uid_move(self, uids: str, target: str) -> str:
        if target not in self._server.folders:
            return "NO [TRYCREATE] there is no such folder"
        for uid in self._chosen(uids):
            self._server.folders[target].add(self._selected.mails.pop(uid))
        return "OK done"

    def _do_uid_copy(self, uids: str, target: str) -> str:
        if target not in self._server.folders:
            return "NO [TRYCREATE] there is no such folder"
        for uid in self._chosen(uids):
            self._server.folders[target].add(self._selected.mails[uid])
        return "OK done"

    def _do_uid_store(self, uids: str, *_flags: str) -> str:
        self._selected.deleted.update(self._chosen(uids))
        return "OK done"

    def _do_uid_expunge(self, uids: str) -> str:
        for uid in self._chosen(uids):
            if uid in self._selected.deleted:
                del self._selected.mails[uid]
        return "OK done"

    async def _do_idle(self) -> str:
        self._say("+ idling")
        await self._writer.drain()
        telling = asyncio.create_task(self._tell())
        try:
            await self._reader.readline()  # DONE
        finally:
            telling.cancel()
        return "OK done"

    async def _tell(self) -> None:
        arrived = self._server._arrived  # noqa: SLF001 - the module's own
        while True:
            async with arrived:
                await arrived.wait()
            self._do_noop()
            await self._writer.drain()

    @property
    def _selected(self) -> Folder:
        if self._folder is None:
            raise ConnectionResetError
        return self._folder

    def _chosen(self, uids: str) -> list[int]:
        return [int(each) for each in uids.split(",") if int(each) in self._selected.mails]

    def _capabilities(self) -> str:
        return " ".join(["IMAP4rev1", *sorted(self._server.capabilities)])

    def _say(self, *lines: str) -> None:
        self._writer.write("".join(f"{line}\r\n" for line in lines).encode())

    async def _command(self) -> tuple[str, str, list[str]] | None:
        line = await self._reader.readline()
        words: list[bytes] = []
        while True:
            line = line.rstrip(b"\r\n")
            literal = _LITERAL.search(line)
            words += _split(line[: literal.start()] if literal else line)
            if literal is None:
                break
            self._say("+ go on")
            await self._writer.drain()
            words.append(await self._reader.readexactly(int(literal[1])))
            line = await self._reader.readline()
        if len(words) < 2:
            return None
        tag, name, *arguments = (word.decode("latin-1") for word in words)
        return tag, name.upper(), arguments


_OPEN_TO_ALL = {"CAPABILITY", "LOGIN", "LOGOUT", "NOOP"}


def _split(line: bytes) -> list[bytes]:
    found = []
    for quoted, bare in _WORDS.findall(line):
        found.append(bare or quoted.replace(b'\\"', b'"').replace(b"\\\\", b"\\"))
    return found


def start(*, port: int = 0) -> ImapSandbox:
    """Start a server with one empty mailbox; port 0 takes a free one."""
    sandbox = ImapSandbox()
    sandbox._loop.run(sandbox._listen(port))  # noqa: SLF001 - the module's own
    return sandbox
