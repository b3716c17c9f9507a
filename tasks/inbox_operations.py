"""Look at the inbox, replay and purge, and notify of what waits, as tasks."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Annotated, Literal, TypeAlias, TypeVar

from prefect import task
from prefect.artifacts import acreate_markdown_artifact
from prefect.settings import PREFECT_UI_URL
from pydantic import BeforeValidator

from tasks.core.former_names import STATUSES
from tasks.core.intake.inbox.consumer_registry import ConsumerRegistry
from tasks.core.intake.inbox.delivery import Delivery
from tasks.core.intake.inbox.operations import (
    UNEVENTFUL,
    DeliveryFilter,
    DeliverySummary,
    InboxOperations,
)
from tasks.core.state.database import open_database
from tasks.core.threads import in_thread
from tasks.deliveries import notify_waiting

__all__ = [
    "DeliveryFilter",
    "Status",
    "list_deliveries",
    "notify_for_waiting",
    "purge_settled",
    "replay",
    "show_deliveries",
    "show_payloads",
]


Status: TypeAlias = Annotated[
    Literal[
        "queued", "received", "leased", "failed", "dead_letter", "done", "ignored", "cancelled"
    ],
    BeforeValidator(lambda status: STATUSES.get(status, status)),
]
_SHOWN_PAYLOAD_CHARS = 50_000
_HEADINGS = [
    "Delivery",
    "Integration",
    "Event",
    "Endpoint",
    "Received",
    "Status",
    "Attempts",
    "Why",
]
T = TypeVar("T")


@task
async def list_deliveries(selection: DeliveryFilter) -> list[DeliverySummary]:
    """The selected deliveries, oldest first."""
    return await _operate(lambda inbox: inbox.select(selection))


@task
async def replay(
    selection: DeliveryFilter, *, dry_run: bool, new_effects: bool
) -> list[DeliverySummary]:
    """Replay the selected deliveries, or only tell which."""
    return await _operate(
        lambda inbox: inbox.replay(selection, dry_run=dry_run, new_effects=new_effects)
    )


@task
async def purge_settled(
    older_than_days: float, *, include_dead_letters: bool, dry_run: bool
) -> int:
    """Delete what was finished so long ago, or only count it."""
    before_at = datetime.now(UTC) - timedelta(days=older_than_days)
    statuses = (*UNEVENTFUL, "dead_letter") if include_dead_letters else UNEVENTFUL
    return await _operate(
        lambda inbox: inbox.purge(settled_before_at=before_at, statuses=statuses, dry_run=dry_run)
    )


@task
async def notify_for_waiting(behind_after_s: float = float("inf")) -> list[str]:
    """Notify of every integration whose deliveries wait and that needs one more run.

    Args:
        behind_after_s: Notify although runs are at work if the oldest has waited for longer.

    Returns:
        The integrations.
    """
    engine = await in_thread(open_database)
    try:
        waiting = await in_thread(ConsumerRegistry(engine).waiting)
    finally:
        engine.dispose()
    now = datetime.now(UTC)
    notified = [
        each.integration
        for each in waiting
        if not each.consumers or (now - each.oldest_due_at).total_seconds() > behind_after_s
    ]
    for integration in notified:
        await notify_waiting(integration)
    return notified


@task
async def show_payloads(deliveries: Sequence[DeliverySummary]) -> dict[str, str]:
    """Copy each payload into an artifact.

    Returns:
        Delivery id to the artifact's address in the UI.
    """
    links = {}
    for summary in deliveries:
        delivery = await _operate(partial(InboxOperations.read, id=summary.id))
        key = f"delivery-{summary.id}"
        await acreate_markdown_artifact(
            key=key,
            markdown=_as_markdown(delivery),
            description=f"{summary.event} received at {summary.endpoint}",
        )
        links[summary.id] = f"{PREFECT_UI_URL.value() or ''}/artifacts/key/{key}"
    return links


@task
async def show_deliveries(
    deliveries: Sequence[DeliverySummary], *, key: str, links: Mapping[str, str] | None = None
) -> None:
    """List deliveries in an artifact, each linked to its payload if there is a link."""
    rows = [
        [
            f"[{each.id}]({links[each.id]})" if links and links.get(each.id) else each.id,
            _escaped(each.integration),
            _escaped(each.event),
            _escaped(each.endpoint),
            f"{each.received_at:%Y-%m-%d %H:%M:%S} UTC",
            each.status,
            str(each.attempts),
            _escaped(each.reason or ""),
        ]
        for each in deliveries
    ]
    lines = ["| " + " | ".join(row) + " |" for row in [_HEADINGS, ["---"] * len(_HEADINGS), *rows]]
    await acreate_markdown_artifact(key=key, markdown="\n".join(lines) if rows else "None.")


async def _operate(action: Callable[[InboxOperations], T]) -> T:
    def run() -> T:
        engine = open_database()
        try:
            return action(InboxOperations(engine))
        finally:
            engine.dispose()

    return await in_thread(run)


def _as_markdown(delivery: Delivery) -> str:
    try:
        text = json.dumps(json.loads(delivery.payload), indent=2, ensure_ascii=False)
    except ValueError:
        text = delivery.payload.decode(errors="replace")
    shown = text[:_SHOWN_PAYLOAD_CHARS]
    cut = (
        "" if shown == text else f"\n\nThe first {_SHOWN_PAYLOAD_CHARS} of {len(text)} characters."
    )
    longest = max((len(run) for run in re.findall("`+", shown)), default=0)
    lease_token = "`" * max(3, longest + 1)  # the payload cannot end its own block
    return f"{lease_token}json\n{shown}\n{lease_token}{cut}"


def _escaped(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]()#+!|<>~])", r"\\\1", " ".join(text.split()))
