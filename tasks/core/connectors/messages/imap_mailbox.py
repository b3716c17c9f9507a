"""Mails of a folder on an IMAP server, moved away once they are stored."""

from __future__ import annotations

import asyncio
import contextlib
import imaplib
import re
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from blocks.errors import (
    BadPayloadError,
    IntegrationError,
    MisconfiguredError,
    PermanentError,
    UnreachableError,
    UpstreamBusyError,
    UpstreamFailedError,
)
from tasks.core.connectors.messages.message import CLOSE_TIMEOUT_S, Message
from tasks.core.connectors.messages.received_mail import is_authenticated, read_mail, sender_of
from tasks.core.threads import in_thread_without_grace, sleep

if TYPE_CHECKING:
    from imap_tools import BaseMailBox

_HEAD_BYTES = 64 * 1024
_MAX_BATCH_BYTES = 32 * 1024 * 1024


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class MailRules:
    """Which mails are accepted and where they go.

    Attributes:
        senders: Addresses ("ann@partner.example") and domains ("@partner.example") that may
            send; mail from anybody else is refused.
        authserv_id: Our mail server's name in Authentication-Results; if given, a mail is
            accepted only if that server reports a DMARC pass.
        max_bytes: Of larger mails only the head is stored; the whole mail goes to `error_folder`.
        archive_folder: Where stored mails go; None deletes them.
        error_folder: Where unreadable mails go.
        refused_folder: Where mails from other senders go, unread.
    """

    senders: tuple[str, ...]
    authserv_id: str | None = None
    max_bytes: int = 25 * 1024 * 1024
    archive_folder: str | None = "Processed"
    error_folder: str = "Unreadable"
    refused_folder: str = "Refused"


class _Receipt(NamedTuple):
    uid: str
    target: str | None


class ImapMailbox:
    """A folder of a mailbox; every mail in it is to be received.

    A mail's identity is folder, UIDVALIDITY and UID. The server announces new mail by IDLE, if it
    can; in any case it is polled every `poll_s`.

    Args:
        connect: Returns a mailbox that is logged in; blocks.
        system: The mailbox, for errors.
        folder: The folder.
        rules: Which mails are accepted and where they go.
        poll_s: Seconds between two polls of the server.
    """

    def __init__(
        self,
        connect: Callable[[], BaseMailBox],
        *,
        system: str,
        folder: str,
        rules: MailRules,
        poll_s: float = 60.0,
    ) -> None:
        self._connect = connect
        self._system = f"{system}/{folder}"
        self._folder = folder
        self._rules = rules
        self._poll_s = poll_s
        # one command at a time per connection: a cancelled caller's may still be running
        self._speaking = threading.Lock()
        self._mailbox: BaseMailBox | None = None
        self._capabilities: frozenset[str] = frozenset()
        self._uidvalidity = ""
        self._idle_since_s: float | None = None
        self._asked_s = float("-inf")
        self._waiting = 0

    @property
    def system(self) -> str:
        """Name of the mailbox and the folder in errors."""
        return self._system

    @property
    def reads_ahead(self) -> bool:
        """False: mails that are not moved yet would be received again."""
        return False

    async def open(self) -> None:
        """Log in, create the folders that mails go to, and select the source folder."""
        await self._in_turn(self._open)

    async def receive(self, limit: int, *, wait_s: float) -> list[Message]:
        """Return the oldest mails, or wait for new ones."""
        return await self._in_turn(self._receive, limit, wait_s)

    async def acknowledge(self, messages: Sequence[Message]) -> None:
        """Move them, or delete them, as the rules say."""
        await self._in_turn(self._put_away, [message.receipt for message in messages])

    async def hold(self, messages: Sequence[Message]) -> None:
        """Keep the connection alive."""
        await self._in_turn(self._noop)

    async def give_back(self, messages: Sequence[Message]) -> None:
        """Do nothing: they are still in the folder."""

    async def lag(self) -> int | None:
        """Return the number of mails in the folder when it was last polled."""
        return self._waiting

    async def close(self) -> None:
        """Log out; drop the connection if the server does not respond."""
        mailbox = self._mailbox
        try:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await self._in_turn(self._close)
        finally:
            if mailbox is not None:
                with contextlib.suppress(OSError):  # it is closed
                    # the plain shutdown: TLS's own would change state another thread is using
                    socket.socket.shutdown(mailbox.client.sock, socket.SHUT_RDWR)

    async def _in_turn(self, function: Callable[..., T], *arguments: Any) -> T:
        def speak() -> T:
            with self._speaking:
                return function(*arguments)

        return await in_thread_without_grace(speak)

    def _open(self) -> None:
        self._idle_since_s = None
        self._asked_s = float("-inf")
        with self._errors("connect"):
            self._mailbox = mailbox = self._connect()
            typ, data = mailbox.client.capability()
            self._capabilities = frozenset(data[0].decode().upper().split() if typ == "OK" else ())
            if not {"MOVE", "UIDPLUS"} & self._capabilities:
                raise MisconfiguredError(
                    "the server can neither move mails nor remove single ones (MOVE, UIDPLUS)",
                    system=self._system,
                    operation="connect",
                )
            for folder in {
                self._rules.archive_folder,
                self._rules.error_folder,
                self._rules.refused_folder,
            } - {None}:
                if not mailbox.folder.exists(str(folder)):
                    mailbox.folder.create(str(folder))
            mailbox.folder.set(self._folder)
            [uidvalidity] = mailbox.client.response("UIDVALIDITY")[1]
            self._uidvalidity = uidvalidity.decode() if uidvalidity else "0"

    def _receive(self, limit: int, wait_s: float) -> list[Message]:
        with self._errors("receive"):
            if self._idle_since_s is not None:
                if not self._something_came(wait_s) and not self._idled_long():
                    return []
                self._open_mailbox.idle.stop()  # type: ignore[no-untyped-call]
                self._idle_since_s = None
            elif self._was_just_asked():
                sleep(min(wait_s, self._poll_s))
                return []
            self._open_mailbox.client.noop()  # servers report new mail only after a command
            uids = self._open_mailbox.uids("ALL", charset=None)
            self._asked_s = time.monotonic()
            self._waiting = len(uids)
            if uids:
                uids.sort(key=int)
                return list(self._fetch(uids[:limit]))
            if "IDLE" in self._capabilities:
                self._open_mailbox.idle.start()  # type: ignore[no-untyped-call]
                self._idle_since_s = time.monotonic()
            return []

    def _something_came(self, wait_s: float) -> bool:
        # Also true when the connection broke, which the library's own poll does not report.
        with selectors.DefaultSelector() as selector:
            selector.register(self._open_mailbox.client.sock, selectors.EVENT_READ)
            return bool(selector.select(wait_s))

    def _was_just_asked(self) -> bool:
        can_idle = "IDLE" in self._capabilities
        is_due = time.monotonic() - self._asked_s >= self._poll_s
        return not can_idle and not is_due and self._waiting == 0

    def _idled_long(self) -> bool:
        # Data that came with the response to IDLE is buffered already, and idle connections die.
        return (
            self._idle_since_s is not None and time.monotonic() - self._idle_since_s >= self._poll_s
        )

    def _fetch(self, uids: Sequence[str]) -> Iterator[Message]:
        heads = self._fetched(uids, f"BODY.PEEK[HEADER]<0.{_HEAD_BYTES}>")
        size_bytes = 0
        wanted: list[str] = []
        for uid, head in heads.items():
            size_bytes += head.size
            if size_bytes > _MAX_BATCH_BYTES and size_bytes > head.size:
                break
            refusal = self._refusal(head.content)
            if refusal is not None:
                receipt = _Receipt(uid, self._rules.refused_folder)
                yield self._message(uid, b"", receipt)._replace(refusal=refusal)
            elif head.size > self._rules.max_bytes:
                receipt = _Receipt(uid, self._rules.error_folder)
                yield self._message(uid, head.content, receipt)._replace(
                    defect=f"{head.size} bytes are more than the {self._rules.max_bytes} allowed; "
                    f"the whole mail is in the folder {self._rules.error_folder}"
                )
            else:
                wanted.append(uid)
        if wanted:  # in one command, since each is a round trip
            # a mail that is not in the response was moved by somebody else meanwhile
            for uid, mail in self._fetched(wanted, "BODY.PEEK[]").items():
                yield self._whole(uid, mail.content)

    def _whole(self, uid: str, body: bytes) -> Message:
        try:
            mail = read_mail(body)
        except BadPayloadError as error:
            receipt = _Receipt(uid, self._rules.error_folder)
            return self._message(uid, body, receipt)._replace(defect=error.message)
        headers = [
            ("from", mail.sender),
            ("subject", mail.subject),
            ("message-id", mail.message_id),
        ]
        return self._message(uid, body, _Receipt(uid, self._rules.archive_folder))._replace(
            headers=headers, content=mail.as_json()
        )

    def _message(self, uid: str, body: bytes, receipt: _Receipt) -> Message:
        return Message(
            subject=self._folder,
            body=body,
            receipt=receipt,
            identity=f"{self._folder}:{self._uidvalidity}:{uid}",
            content_type="message/rfc822",
        )

    def _refusal(self, head: bytes) -> str | None:
        sender = sender_of(head)
        if sender not in self._rules.senders and not any(
            rule.startswith("@") and sender.endswith(rule) for rule in self._rules.senders
        ):
            return "its sender is not on the list"
        if self._rules.authserv_id and not is_authenticated(head, self._rules.authserv_id):
            return "its sender's domain does not authenticate it (DMARC)"
        return None

    def _fetched(self, uids: Sequence[str], part: str) -> dict[str, _Fetched]:
        typ, data = self._open_mailbox.client.uid("FETCH", ",".join(uids), f"(RFC822.SIZE {part})")
        self._check(typ, "FETCH")
        return dict(_fetch_answers(data))

    def _put_away(self, receipts: Iterable[_Receipt]) -> None:
        targets: dict[str | None, list[str]] = {}
        for receipt in receipts:
            targets.setdefault(receipt.target, []).append(receipt.uid)
        with self._errors("move"):
            for target, uids in targets.items():
                self._move(",".join(uids), target)
                self._waiting = max(0, self._waiting - len(uids))

    def _move(self, uids: str, target: str | None) -> None:
        client = self._open_mailbox.client
        if target is not None:
            from imap_tools.imap_utf7 import utf7_encode

            quoted = b'"' + utf7_encode(target).replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'
            if "MOVE" in self._capabilities:
                typ, _ = client.uid("MOVE", uids, quoted)  # type: ignore[arg-type]
                self._check(typ, "MOVE")
                return
            typ, _ = client.uid("COPY", uids, quoted)  # type: ignore[arg-type]
            self._check(typ, "COPY")
        typ, _ = client.uid("STORE", uids, "+FLAGS.SILENT", r"(\Deleted)")
        self._check(typ, "STORE")
        if "UIDPLUS" in self._capabilities:
            # a plain EXPUNGE would also remove mails that others have marked
            typ, _ = client.uid("EXPUNGE", uids)
            self._check(typ, "EXPUNGE")

    def _noop(self) -> None:
        with self._errors("hold"):
            if self._idle_since_s is None:
                self._open_mailbox.client.noop()

    def _close(self) -> None:
        mailbox, self._mailbox = self._mailbox, None
        if mailbox is None:
            return
        with contextlib.suppress(Exception):  # the connection may be dead already
            if self._idle_since_s is not None:
                mailbox.idle.stop()  # type: ignore[no-untyped-call]
            mailbox.logout()
        with contextlib.suppress(Exception):
            mailbox.client.shutdown()

    @property
    def _open_mailbox(self) -> BaseMailBox:
        if self._mailbox is None:
            raise ConnectionResetError
        return self._mailbox

    def _check(self, typ: str, command: str) -> None:
        if typ != "OK":
            raise UpstreamFailedError(
                f"the server answered {typ}", system=self._system, operation=command
            )

    @contextlib.contextmanager
    def _errors(self, operation: str) -> Iterator[None]:
        from imap_tools.errors import ImapToolsError

        try:
            yield
        except IntegrationError:
            raise
        except (imaplib.IMAP4.error, ImapToolsError, OSError, EOFError) as exc:
            raise self._mapped(exc, operation) from exc

    def _mapped(self, exc: Exception, operation: str) -> IntegrationError:
        from imap_tools import errors

        where: dict[str, Any] = {"system": self._system, "operation": operation}
        if isinstance(exc, errors.MailboxLoginError):
            return MisconfiguredError("the server refused the login; check it", **where)
        if isinstance(exc, errors.MailboxFolderSelectError):
            return MisconfiguredError("the folder does not exist or may not be read", **where)
        if isinstance(exc, errors.MailboxFolderCreateError):
            return MisconfiguredError("a folder for processed mails cannot be made", **where)
        if isinstance(exc, imaplib.IMAP4.abort | OSError | EOFError):
            return UnreachableError(f"no connection ({type(exc).__name__})", **where)
        if isinstance(exc, errors.UnexpectedCommandStatusError):
            return UpstreamBusyError(f"the server did not do it ({type(exc).__name__})", **where)
        return PermanentError(f"the server refused ({type(exc).__name__})", **where)


class _Fetched(NamedTuple):
    size: int
    content: bytes


def _fetch_answers(data: Sequence[Any]) -> Iterator[tuple[str, _Fetched]]:
    """Yield the items of a FETCH response, in `imaplib`'s form (before literal, literal), after."""
    for position, item in enumerate(data):
        if not isinstance(item, tuple):
            continue
        after = data[position + 1] if position + 1 < len(data) else b""
        around = item[0] + (after if isinstance(after, bytes) else b"")
        uid = re.search(rb"\bUID (\d+)", around)
        size = re.search(rb"\bRFC822\.SIZE (\d+)", around)
        if uid and size:
            yield uid[1].decode(), _Fetched(int(size[1]), item[1])
