"""The file being read, as named in its errors."""

from __future__ import annotations

from typing import NamedTuple

from blocks.errors import BadPayloadError


class Source(NamedTuple):
    """The file being read and its system.

    Attributes:
        system: Name of the folder it came from, e.g. "sftp://files.partner.example".
        name: The file's path in that system; a member of an archive follows after "/".
    """

    system: str
    name: str

    def bad(self, message: str, *, line: int | None = None) -> BadPayloadError:
        """Return the error that says what is wrong with this file, where, and how to fix it."""
        return BadPayloadError(
            message if line is None else f"line {line}: {message}",
            system=self.system,
            operation="read",
            record=self.name,
            line=line,
        )

    def empty(self) -> BadPayloadError:
        """Return the error for an empty file."""
        return self.bad("the file is empty (0 bytes); have the sender write it again")
