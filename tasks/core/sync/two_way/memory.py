"""What a pair remembers between two looks, as the identity map keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.core.sync.two_way.deciding import Known
from tasks.core.sync.two_way.identity_map.sides import SIDES, Side


def remembered(state: Mapping[str, Any]) -> dict[Side, Known]:
    """What is known of both sides."""
    return {side: _known(state.get(side, {})) for side in SIDES}


def to_remember(known: Mapping[Side, Known]) -> dict[str, Any]:
    """The state from which `remembered` reads the same again."""
    return {
        side: {
            "in_step": dict(known[side].in_step),
            "sent": {name: list(digests) for name, digests in known[side].sent.items()},
        }
        for side in SIDES
    }


def _known(kept: Mapping[str, Any]) -> Known:
    sent = {name: tuple(digests) for name, digests in kept.get("sent", {}).items()}
    return Known(kept.get("in_step", {}), sent)
