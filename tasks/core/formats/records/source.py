"""The file being read, as its errors name it."""

from __future__ import annotations

from typing import NamedTuple

from blocks.errors import BadPayloadError


class Source(NamedTuple):
    """Which file of which system is being read.

    Attributes:
        system: As the folder it came from calls itself, e.g. "sftp://files.partner.example".
        name: The file's path in that system; a member of an archive follows after "/".
    """

    system: str
    name: str

    def bad(self, message: str, *, line: int | None = None) -> BadPayloadError:
        """The error that says what is wrong with this file, where, and how to mend it."""
        return BadPayloadError(
            message if line is None else f"line {line}: {message}",
            system=self.system,
            operation="read",
            record=self.name,
            line=line,
        )

    def empty(self) -> BadPayloadError:
        """The error for a file of no bytes."""
        return self.bad("the file is empty (0 bytes); have the sender write it again")
