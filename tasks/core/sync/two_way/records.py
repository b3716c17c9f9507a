"""What bringing two sides in step needs of each of them: its records, and safe ways to write."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from blocks.errors import TransientError
from tasks.core.sync.two_way.deciding import Snapshot, Value


class ChangedMeanwhileError(TransientError):
    """The record was changed, made or deleted between reading and writing: look again."""


@dataclass(frozen=True, slots=True)
class FoundRecord:
    """A record as it was read.

    Attributes:
        id: Its own; another than was asked for if that one was merged into this.
        version: What a write names, so that it never overwrites what it has not seen.
        snapshot: The fields that both sides share.
        marker: The pair for which it was made, where the side keeps such a mark.
        raw: The record as the side shows it.
    """

    id: str
    version: str
    snapshot: Snapshot
    marker: str | None = None
    raw: Mapping[str, Any] | None = None


class Records(Protocol):
    """The records of one side. Every method raises what calls to its API raise."""

    @property
    def name(self) -> str:
        """What people call this side, e.g. "CRM"."""
        ...

    def read(self, record_id: str) -> FoundRecord | None:
        """The record with this id, or the one it was merged into; None if there is none."""
        ...

    def find_made_for(self, marker: str) -> FoundRecord | None:
        """The record that `create` made with this marker, if it can be found by it."""
        ...

    def find_like(self, found: FoundRecord) -> list[FoundRecord]:
        """Records that are likely the same thing as one of the other side, likeliest first."""
        ...

    def chosen_id(self, other: FoundRecord) -> str | None:
        """The id that a new record for the other side's one shall get; None if it is assigned."""
        ...

    def create(
        self, values: Mapping[str, Value], *, marker: str, record_id: str | None
    ) -> FoundRecord:
        """Make a record.

        Args:
            values: Those that are not None.
            marker: To find it by.
            record_id: The id it shall have, where it can be chosen.

        Raises:
            ChangedMeanwhileError: There is one with this id, or for this marker, already.
        """
        ...

    def update(self, found: FoundRecord, values: Mapping[str, Value]) -> FoundRecord:
        """Change these fields of a record, and no other; returns it as it is afterwards.

        Raises:
            ChangedMeanwhileError: It is not as it was found any more.
        """
        ...

    def delete(self, found: FoundRecord) -> None:
        """Delete a record.

        Raises:
            ChangedMeanwhileError: It is not as it was found any more.
        """
        ...
