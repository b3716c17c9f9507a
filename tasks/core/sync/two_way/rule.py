"""Which side prevails when both have changed the same thing since they were last in step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from tasks.core.sync.two_way.identity_map.sides import Side


@dataclass(frozen=True, slots=True)
class ConflictRule:
    """The rule of one kind of record.

    Attributes:
        owners: Field to the side that owns it: what the other side says of it never counts.
            Of all other fields the newest change wins.
        at_same_time: The side that wins when two changes have the same instant.
        deletion: What becomes of a record that was deleted on one side and changed on the other
            since they were in step: "loses" keeps it with the change, "wins" deletes it.
    """

    owners: Mapping[str, Side] = field(default_factory=dict)
    at_same_time: Side = "left"
    deletion: Literal["loses", "wins"] = "loses"
