"""Operate the inbox from the Prefect UI: replay, purge, show dead letters, notify again."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from prefect import State
from prefect.states import Completed

from tasks.inbox_operations import (
    DeliveryFilter,
    Status,
    list_deliveries,
    notify_for_waiting,
    purge_settled,
    replay,
    show_deliveries,
    show_payloads,
)
from tasks.integration_flow import flow, run_name


@flow(name="replay-deliveries")
async def replay_deliveries(
    ids: list[str] | None = None,
    integration: str | None = None,
    endpoint: str | None = None,
    statuses: list[Status] | None = None,
    received_from: datetime | None = None,
    received_until: datetime | None = None,
    limit: int = 1000,
    dry_run: bool = True,
    force_new_effects: bool = False,
) -> State[Any]:
    """Have deliveries handled again. At first it only lists them; then run it without dry run.

    Every criterion that is given must hold. What a run is handling right now is left alone.

    Args:
        ids: Delivery ids, as task run names show them.
        integration: Whose deliveries, e.g. github_events; empty for all.
        endpoint: Where they came in, as it is declared, e.g. github; empty for all.
        statuses: What became of them; without ids and statuses: dead-lettered.
        received_from: The earliest arrival; empty: as old as there are.
        received_until: The first arrival that is not meant any more.
        limit: At most so many, the oldest.
        dry_run: Only list what would be replayed.
        force_new_effects: Repeat effects even where they were completed. Without it each
            delivery keeps its idempotency key: what was done is not done twice.
    """
    selection = DeliveryFilter(
        ids=tuple(ids or ()),
        integration=integration,
        endpoint=endpoint,
        statuses=tuple(statuses or (() if ids else ("dead_letter",))),
        received_from_at=received_from,
        received_until_at=received_until,
        limit=limit,
    )
    found = await replay(selection, dry_run=dry_run, new_effects=force_new_effects)
    await show_deliveries(found, key="replayed-deliveries")
    if dry_run:
        return Completed(message=f"{len(found)} deliveries would be replayed")
    await notify_for_waiting()
    return Completed(message=f"{len(found)} deliveries replayed")


@flow(name="purge-deliveries")
async def purge_deliveries(
    older_than_days: float = 30,
    include_dead_letters: bool = False,
    dry_run: bool = True,
) -> State[Any]:
    """Delete finished deliveries and their content. At first it only counts them.

    A purged delivery is forgotten: keep them for longer than any sender repeats.

    Args:
        older_than_days: Days since a delivery was finished.
        include_dead_letters: Give up on dead-lettered ones as well.
        dry_run: Only count what would be deleted.
    """
    count = await purge_settled(
        older_than_days, include_dead_letters=include_dead_letters, dry_run=dry_run
    )
    return Completed(message=f"{count} deliveries {'would be ' if dry_run else ''}deleted")


@flow(name="list-dead-letters")
async def list_dead_letters(
    integration: str | None = None, limit: int = 200, show_content: bool = True
) -> State[Any]:
    """Show what is dead-lettered and why, in an artifact that links each delivery's payload.

    Args:
        integration: Whose deliveries; empty for all.
        limit: At most so many, the oldest.
        show_content: Copy the payloads into artifacts, where everyone with access to the UI can
            read them.
    """
    selection = DeliveryFilter(integration=integration, statuses=("dead_letter",), limit=limit)
    dead_lettered = await list_deliveries(selection)
    links = await show_payloads(dead_lettered) if show_content else {}
    await show_deliveries(dead_lettered, key="dead-letters", links=links)
    return Completed(message=f"{len(dead_lettered)} deliveries are dead-lettered")


list_parked_deliveries = list_dead_letters  # former name, which saved deployments may start


@flow(name="sweep-inbox", flow_run_name=run_name())
async def sweep_inbox(behind_after_s: float = 60) -> State[Any]:
    """Notify again of what is waiting: lost events, retries that are due, lapsed leases.

    Args:
        behind_after_s: An integration whose oldest delivery has waited for longer gets one more
            run, even if some are at work.
    """
    notified = await notify_for_waiting(behind_after_s)
    return Completed(message=f"notified: {', '.join(notified)}" if notified else "nothing waits")
