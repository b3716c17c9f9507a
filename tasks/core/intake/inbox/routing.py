"""Decides by declared rules which integration an event belongs to.

A rule compares values at paths in the payload: `{"when": {"object.type": "Contact"},
"to": "crm_contacts"}`. The first rule that matches decides. Where that is not enough, write a
function from `Delivery` to the integration's name and hand it over the same way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from tasks.core.intake.inbox.delivery import Delivery

Scalar = str | int | float | bool | None

_MISSING = object()


class Route(BaseModel):
    """One rule.

    Example:
        >>> Route(when={"type": "order", "lines.0.sku": ["A1", "A2"]}, to="order_events")
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    when: dict[str, Scalar | list[Scalar]] = Field(
        description="Path in the payload to the value it must have, or to a list of which it "
        "must be one; all must hold. Parts of a path are keys or list positions, separated by "
        'dots; "$event" stands for the event\'s name.'
    )
    to: str = Field(description="The integration that takes matching events.")

    def matches(self, delivery: Delivery, payload: Any) -> bool:
        """Whether every path has its value."""
        return all_hold(self.when, payload, event=delivery.event)


def route(delivery: Delivery, routes: Sequence[Route]) -> str | None:
    """The integration of the first rule that matches, or None.

    Raises:
        BadPayloadError: The payload is not JSON.
    """
    payload = delivery.json()
    return next((rule.to for rule in routes if rule.matches(delivery, payload)), None)


def all_hold(when: Mapping[str, Scalar | list[Scalar]], payload: Any, *, event: str = "") -> bool:
    """Whether every path in the payload has its value, or one of its list of values.

    Args:
        when: As `Route.when`.
        payload: JSON.
        event: What "$event" stands for.
    """
    return all(
        _equals_one_of(
            event if path == "$event" else value_at(payload, path),
            expected if isinstance(expected, list) else [expected],
        )
        for path, expected in when.items()
    )


def value_at(payload: Any, path: str) -> Any:
    """What is at a path like "lines.0.sku", or a value equal to nothing else."""
    found = payload
    for part in path.split("."):
        if isinstance(found, dict):
            found = found.get(part, _MISSING)
        elif isinstance(found, list) and part.isdecimal() and int(part) < len(found):
            found = found[int(part)]
        else:
            return _MISSING
    return found


def _equals_one_of(found: Any, expected: Sequence[Scalar]) -> bool:
    # true is not 1: a rule on a flag must not match a count
    return any(
        found == each and isinstance(found, bool) is isinstance(each, bool) for each in expected
    )
