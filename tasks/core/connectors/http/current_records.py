"""Detects outdated events: those whose record has changed since."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from blocks.errors import UpstreamRejectedError
from tasks.core.connectors.http.client import ApiClient


def is_outdated(
    application: ApiClient,
    path: str,
    record: Mapping[str, Any],
    *,
    is_deletion: bool,
    not_compared: Collection[str],
    name: str,
) -> bool:
    """Return whether the record has changed, vanished or been created again since the event.

    If so, a later event describes it: an export that skips outdated events never restores an old
    state, however late it handles them and however often they are replayed.

    Args:
        application: The API that holds the record.
        path: The record's path there.
        record: As the event describes it.
        is_deletion: Whether the event reports its deletion.
        not_compared: Fields that exports or the application itself write.
        name: The record's name, for errors.

    Raises:
        IntegrationError: As in `ApiClient.call`.
    """
    try:
        current = application.call("GET", path, operation="read record", record=name).json()
    except UpstreamRejectedError as error:
        if error.status != 404:
            raise
        return not is_deletion

    def content(of: Mapping[str, Any]) -> dict[str, Any]:
        return {field: value for field, value in of.items() if field not in not_compared}

    return is_deletion or content(current) != content(record)
