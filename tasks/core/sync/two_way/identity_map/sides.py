"""The two sides of a pair; it is the integration that says who is who."""

from __future__ import annotations

from typing import Literal, TypeAlias

Side: TypeAlias = Literal["left", "right"]
SIDES: tuple[Side, Side] = ("left", "right")


def other_side(side: Side) -> Side:
    """The one that this is not."""
    return "right" if side == "left" else "left"
