"""What asyncssh and SFTP servers report, mapped to the project's error tree, with what to do."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import asyncssh

from blocks.errors import (
    IntegrationError,
    MisconfiguredError,
    PermanentError,
    UnreachableError,
    UpstreamFailedError,
)
from tasks.core.connectors.folders.protocol import FileChangedError, TargetExistsError

_VANISHING = ("read", "move")


@contextmanager
def sftp_errors(system: str, operation: str, path: str | None) -> Iterator[None]:
    """Map third-party errors to the tree of `blocks.errors`.

    Source: draft-ietf-secsh-filexfer-02 §7 (what version 3 of SFTP can say), RFC 4253 §11.1.
    """
    try:
        yield
    except (asyncssh.Error, OSError) as exc:
        raise _mapped(exc, system, operation, path) from exc


def _mapped(
    exc: asyncssh.Error | OSError, system: str, operation: str, path: str | None
) -> IntegrationError:
    kind, message = _connection(exc) or _answer(exc, operation) or (PermanentError, _reason(exc))
    return kind(message, system=system, operation=operation, record=path)


def _connection(exc: asyncssh.Error | OSError) -> tuple[type[IntegrationError], str] | None:
    """Map failures to connect or log in."""
    match exc:
        case asyncssh.HostKeyNotVerifiable():
            return MisconfiguredError, (
                f"the server is not the one that the block's known hosts name ({exc.reason}). If "
                "the partner confirms that this key is theirs, put it into the block's known hosts"
            )
        case asyncssh.PermissionDenied():
            return MisconfiguredError, (
                "the server refused the log-in; check user name, password and key in the block, "
                "and with the partner whether they are still valid"
            )
        case asyncssh.KeyExchangeFailed():
            return MisconfiguredError, (
                f"no algorithm that both sides accept ({exc.reason}); if the server has a host key "
                "of another type than the block's known hosts, ask the partner for the new one"
            )
        case (
            asyncssh.SFTPConnectionLost()
            | asyncssh.SFTPNoConnection()
            | asyncssh.ConnectionLost()
            | ConnectionResetError()
            | BrokenPipeError()
        ):
            return UnreachableError, (
                "the connection was cut; if trying again does not help, ask the partner whether "
                "their server or firewall ends it"
            )
        case asyncssh.DisconnectError() | asyncssh.ChannelOpenError():
            return UnreachableError, f"the server ended the connection ({_reason(exc)})"
        case TimeoutError():
            return UnreachableError, (
                "no answer in time; is the server up, and are host, port and firewall right?"
            )
        case socket.gaierror():
            return UnreachableError, "no address for the server's name; is the host right?"
        case OSError():
            return UnreachableError, (
                f"no connection ({_reason(exc)}); is the server up, and are host and port right?"
            )
    return None


def _answer(exc: asyncssh.Error, operation: str) -> tuple[type[IntegrationError], str] | None:
    """Map the server's response to a request."""
    match exc:
        case asyncssh.SFTPNoSuchFile() | asyncssh.SFTPNoSuchPath() | asyncssh.SFTPNotADirectory():
            if operation in _VANISHING:
                return FileChangedError, (
                    "it vanished since it was listed; the next listing shows it as it is now"
                )
            return MisconfiguredError, (
                "there is no such folder; have it made, or correct its name"
            )
        case asyncssh.SFTPPermissionDenied() | asyncssh.SFTPWriteProtect():
            return MisconfiguredError, (
                "the server denies permission; ask the partner to let the user do this there"
            )
        case asyncssh.SFTPNoSpaceOnFilesystem() | asyncssh.SFTPQuotaExceeded():
            return PermanentError, "no room on the server; have the partner make room"
        case asyncssh.SFTPFileAlreadyExists():
            return TargetExistsError, "there is a file of that name already"
        case asyncssh.SFTPFailure() if operation == "put":
            return PermanentError, (
                f"the server failed to store it ({_reason(exc)}), most often because its disk or "
                "the user's quota is full; have the partner make room"
            )
        case asyncssh.SFTPFailure() if operation == "move":
            return PermanentError, (
                f"the server failed to move it ({_reason(exc)}); are both folders on one disk?"
            )
        case asyncssh.SFTPBadMessage():
            return UpstreamFailedError, f"the server's answer makes no sense ({_reason(exc)})"
    return None


def _reason(exc: asyncssh.Error | OSError) -> str:
    if isinstance(exc, OSError):
        return exc.strerror or errno.errorcode.get(exc.errno or 0) or type(exc).__name__
    return str(exc) or type(exc).__name__
