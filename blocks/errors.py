"""Every way in which an integration can fail, as one tree.

    IntegrationError(message, *, system, operation, record=None)
    ├── TransientError(…, retry_after_s=None)   trying again may help
    │   ├── UnreachableError                    no connection, or it broke or timed out
    │   ├── UpstreamBusyError                   the other side is busy (429, 503, locked)
    │   ├── UpstreamFailedError                 the other side failed (other 5xx)
    │   └── LeaseLostError                      our lease expired and another run took over
    └── PermanentError                          the same call will fail again
        ├── MisconfiguredError                  ours to fix: credentials, host key, missing folder
        ├── UpstreamRejectedError               the other side rejects what was sent (other 4xx)
        ├── BadPayloadError                     what was received breaks its contract
        └── SignatureInvalidError               the sender could not be authenticated

Only a `TransientError` is retried. A message says what happened and what to do. It never holds
a secret, a body or a URL's query, because it ends up in logs, artifacts and run states.
"""

from __future__ import annotations

from typing import Any


class IntegrationError(Exception):
    """A failure between us and another system.

    Attributes:
        system: The other system as its block names it, e.g. "sftp://files.partner.example".
        operation: What was being done, e.g. "download".
        record: The file, delivery or record concerned, if any.
    """

    def __init__(
        self, message: str, *, system: str, operation: str, record: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.system = system
        self.operation = operation
        self.record = record

    def __str__(self) -> str:
        where = f"{self.system}: {self.operation}"
        if self.record is not None:
            where = f"{where} {self.record!r}"
        return f"{where}: {self.message}"

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions are pickled between processes; the default drops keyword arguments.
        return (_rebuild, (type(self), self.message, _fields(self)))


class TransientError(IntegrationError):
    """A failure that a retry may overcome.

    Attributes:
        retry_after_s: Seconds the other side asked us to wait, if it did.
    """

    def __init__(
        self,
        message: str,
        *,
        system: str,
        operation: str,
        record: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, system=system, operation=operation, record=record)
        self.retry_after_s = retry_after_s


class UnreachableError(TransientError):
    """No connection could be made, or it broke or timed out."""


class UpstreamBusyError(TransientError):
    """The other side is reachable but busy."""


class UpstreamFailedError(TransientError):
    """The other side failed while handling the request."""


class LeaseLostError(TransientError):
    """Our lease expired and another run took over: stop, and leave the work to that run."""


class PermanentError(IntegrationError):
    """A failure that repeats until somebody changes something."""


class MisconfiguredError(PermanentError):
    """Ours to fix: wrong credentials, unknown host key, missing folder or permission."""


class UpstreamRejectedError(PermanentError):
    """The other side rejects what was sent.

    Attributes:
        status: The protocol's status code, where it has one.
        details: What the other side said about single records, if anything: one mapping each,
            e.g. {"index": 3, "field": "quantity", "reason": "must not be negative"}.
        said: The reason in the other side's words, shortened, without anything that looks secret.
    """

    def __init__(
        self,
        message: str,
        *,
        system: str,
        operation: str,
        record: str | None = None,
        status: int | None = None,
        details: tuple[dict[str, Any], ...] = (),
        said: str = "",
    ) -> None:
        super().__init__(message, system=system, operation=operation, record=record)
        self.status = status
        self.details = details
        self.said = said

    @property
    def explained(self) -> str:
        """The error with the other side's own words, for those who have to fix the record."""
        return f"{self}; it says: {self.said}" if self.said else str(self)


class BadPayloadError(PermanentError):
    """What was received breaks its contract; the message says where and what was expected.

    Attributes:
        line: The line, row or element concerned, counted from 1, if any.
    """

    def __init__(
        self,
        message: str,
        *,
        system: str,
        operation: str,
        record: str | None = None,
        line: int | None = None,
    ) -> None:
        super().__init__(message, system=system, operation=operation, record=record)
        self.line = line


class SignatureInvalidError(PermanentError):
    """The sender could not be authenticated: the request is malformed or forged."""


def _fields(error: IntegrationError) -> dict[str, Any]:
    return {name: value for name, value in vars(error).items() if name != "message"}


def _rebuild(
    kind: type[IntegrationError], message: str, fields: dict[str, Any]
) -> IntegrationError:
    return kind(message, **fields)
