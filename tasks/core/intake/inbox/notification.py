"""The notifier: the event that starts a consumer run. It says only that something is waiting.

Events may be merged or lost; the inbox is the record, and the sweeper notifies again.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

EVENT_NAME = "inbox.deliveries-waiting"


def resource_id(integration: str) -> str:
    """The Prefect resource that the triggers in `prefect.yaml` match, e.g. "inbox.orders"."""
    return f"inbox.{integration}"


def related_tags(integration: str) -> list[dict[str, str]]:
    """By which an integration's events are found together with the events of its runs."""
    tag = f"prefect.tag.{integration.replace('_', '-')}"
    return [{"prefect.resource.id": tag, "prefect.resource.role": "tag"}]


def waiting_event(integration: str) -> dict[str, Any]:
    """One event as Prefect's `POST /api/events` takes it in its list.

    Source: https://docs.prefect.io/v3/concepts/events
    """
    return {
        "id": str(uuid.uuid4()),
        "event": EVENT_NAME,
        "occurred": datetime.now(UTC).isoformat(),
        "resource": {"prefect.resource.id": resource_id(integration)},
        "related": related_tags(integration),
        "payload": {"integration": integration},
    }
