"""Walks through whole lists and brings in step what differs, so that lost events do no harm."""

from __future__ import annotations

import contextvars
from collections.abc import Sequence

from pydantic import BaseModel

from blocks.errors import PermanentError, TransientError
from tasks.core.connectors.http.pagination import Position
from tasks.core.sync.two_way.identity_map.sides import Side
from tasks.core.sync.two_way.records import FoundRecord
from tasks.core.sync.two_way.syncing import Synced, TwoWaySync
from tasks.core.threads import DaemonThreadPoolExecutor, check_cancelled

_AT_ONCE = 8


class RecordReport(BaseModel):
    """What became of one record.

    Attributes:
        record: Side and id, for people.
        what: What was done, or why it could not be.
    """

    record: str
    what: str


class ReconcileReport(BaseModel):
    """What a part of a walk found and did.

    Attributes:
        seen: Ids of all records that were looked at.
        brought_in_step: Those that differed.
        refused: Those that could not be brought in step.
        next_position: Where the next page is; None if this was the last.
    """

    seen: list[str] = []
    brought_in_step: list[RecordReport] = []
    refused: list[RecordReport] = []
    next_position: Position = None


def bring_page_in_step(
    two_way: TwoWaySync, side: Side, name: str, page: Sequence[FoundRecord], next_position: Position
) -> ReconcileReport:
    """Bring in step what differs of one page of a side's list.

    A record whose counterpart is gone is not deleted here: how many are gone is known, and looked
    at, when both lists were read.

    Args:
        two_way: Both sides.
        side: Whose list it is.
        name: What people call this side.
        page: The records.
        next_position: Of the following page.

    Raises:
        TransientError: Some record could not be brought in step just now; the others are.
    """
    snapshots = {found.id: found.snapshot for found in page}
    differing = two_way.find_differing(side, snapshots)
    records: list[tuple[Side, str]] = [(side, id_) for id_ in differing]
    report = bring_in_step(two_way, records, {side: name}, follows_deletions=False)
    return report.model_copy(update={"seen": list(snapshots), "next_position": next_position})


def bring_in_step(
    two_way: TwoWaySync,
    records: Sequence[tuple[Side, str]],
    names: dict[Side, str],
    *,
    follows_deletions: bool = True,
) -> ReconcileReport:
    """Bring records in step, some at once; what is refused for good does not stop the others.

    Args:
        two_way: Both sides.
        records: Side and id of each.
        names: What people call the sides.
        follows_deletions: As in `TwoWaySync.sync`.

    Raises:
        TransientError: As in `bring_page_in_step`.
    """

    def sync(record: tuple[Side, str]) -> Synced | PermanentError | TransientError:
        check_cancelled()
        try:
            return two_way.sync(*record, follows_deletions=follows_deletions)
        except (PermanentError, TransientError) as error:
            return error

    report, passing = ReconcileReport(), None
    with DaemonThreadPoolExecutor(_AT_ONCE, "bring-in-step") as threads:
        # Prefect's run travels in the context
        under_way = [
            threads.submit(contextvars.copy_context().run, sync, record) for record in records
        ]
        for (side, record_id), future in zip(records, under_way, strict=True):
            record, result = f"{names[side]} {record_id}", future.result()
            if isinstance(result, TransientError):
                passing = passing or result
            elif isinstance(result, PermanentError):
                report.refused.append(RecordReport(record=record, what=str(result)))
            elif result.done:
                report.brought_in_step.append(
                    RecordReport(record=record, what="; ".join(result.done))
                )
    if passing is not None:
        raise passing
    return report
