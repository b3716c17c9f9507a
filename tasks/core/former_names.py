"""Names that settings, parameters and states had before, so that what users have saved still works.

Saved deployments, own `prefect.yaml` files, declarations and command lines may still hold them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PARAMETERS = {
    "draining": "consumer",
    "pick_up": "selection",
    "put_away": "after_import",
    "parked_too": "include_dead_letters",
    "tax_patience_s": "tax_timeout_s",
}
"""Parameters of flows."""

CONSUMER_SETTINGS = {
    "linger_s": "idle_timeout_s",
    "stand_by": "keep_warm",
    "max_drains": "max_runs",
}
"""Settings of a run that handles deliveries."""

ENDPOINT_FIELDS = {"synchronous": "request_reply"}
"""Fields of an endpoint in `integration.yaml`."""

STATUSES = {"parked": "dead_letter", "claimed": "leased"}
"""Statuses of deliveries."""


def in_present_names(values: Any, names: Mapping[str, str]) -> Any:
    """Give what is under a former name its present one; what is no mapping stays as it is.

    Args:
        values: As they were saved.
        names: Former name to present name.

    Raises:
        ValueError: A value stands under both names.
    """
    if not isinstance(values, Mapping) or not names.keys() & values.keys():
        return values
    for former, name in names.items():
        if former in values and name in values:
            raise ValueError(f"{former} is the former name of {name}: give only {name}")
    return {names.get(name, name): value for name, value in values.items()}
