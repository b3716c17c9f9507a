"""Whether an event still tells how its record is: a later one makes it outdated."""

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
    """Whether the record has changed since, or is gone, or has come again after its deletion.

    Then a later event tells more, or will: an export that leaves outdated events alone never
    brings back an old state, however late it handles them, and however often they are replayed.

    Args:
        application: Where the record is.
        path: Its address there.
        record: As the event tells it.
        is_deletion: Whether the event tells of its deletion.
        not_compared: Fields that exports or the application itself write.
        name: Of the record, for errors.

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
