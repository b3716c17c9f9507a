"""Tasks that reconcile both sides of a two-way integration, page by page, resumable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from prefect import Task
from prefect.artifacts import acreate_table_artifact
from prefect.cache_policies import CacheKeyFnPolicy
from prefect.runtime import flow_run

from tasks.api import is_transient
from tasks.core.connectors.http.client import ApiClient
from tasks.core.connectors.http.pagination import PaginationStyle, Position
from tasks.core.connectors.http.paging import fetch_page
from tasks.core.sync.two_way.deciding import Snapshot, Value, changed_at_of
from tasks.core.sync.two_way.identity_map.pairs import IdentityMap, LeasedPair
from tasks.core.sync.two_way.identity_map.sides import Side
from tasks.core.sync.two_way.reconcile import (
    ReconcileReport,
    RecordReport,
    bring_in_step,
    bring_page_in_step,
)
from tasks.core.sync.two_way.records import ChangedMeanwhileError, FoundRecord
from tasks.core.sync.two_way.rule import ConflictRule
from tasks.core.sync.two_way.syncing import Synced, TwoWaySync
from tasks.core.threads import check_cancelled, in_thread

__all__ = [
    "ChangedMeanwhileError",
    "ConflictRule",
    "FoundRecord",
    "IdentityMap",
    "LeasedPair",
    "ListedSide",
    "ReconcileReport",
    "Side",
    "Snapshot",
    "Synced",
    "TwoWaySync",
    "Value",
    "bring_unseen_in_step",
    "changed_at_of",
    "find_all_unseen",
    "joined",
    "reconcile_list",
    "show_reconciled",
]


_RETRY_DELAYS_S = [1.0, 5.0]
_UNSEEN_AT_ONCE = 500
_SHOWN = 500


class ListedSide(Protocol):
    """A side whose records can be listed.

    Attributes:
        side: Which it is.
        name: What people call it.
        api: Its API.
        path: Of the list.
        pages: How the list is paged.
        page_size: The parameter that asks for so many records a page.
    """

    side: Side
    name: str
    api: ApiClient
    path: str
    pages: PaginationStyle
    page_size: Mapping[str, int]

    def found(self, record: Any) -> FoundRecord:
        """Make a record of the list one of the two sides."""
        ...


async def reconcile_list(two_way: TwoWaySync, listed: ListedSide) -> ReconcileReport:
    """Bring in step whatever differs of one side's list, a task run a page.

    A retry of the flow run goes on at the page that failed.

    Args:
        two_way: Both sides.
        listed: The one whose list it is.

    Raises:
        IntegrationError: The list cannot be read, or a record cannot be written just now.
    """

    def look_through(position: Position) -> ReconcileReport:
        page = fetch_page(
            listed.api, listed.path, listed.pages, position=position, params=listed.page_size
        )
        records = [listed.found(record) for record in page.records]
        return bring_page_in_step(two_way, listed.side, listed.name, records, page.next_position)

    async def page(number: int, position: Position) -> ReconcileReport:  # noqa: ARG001 - names the run
        return await in_thread(look_through, position)

    run_id = flow_run.id

    def key(_context: Any, parameters: dict[str, Any]) -> str:
        return f"two-way-{run_id}-{listed.side}-{parameters['number']}"

    reconciling = Task(
        fn=page,
        name=f"page of {listed.name}",
        task_run_name=f"page {{number}} of {listed.name}",
        retries=len(_RETRY_DELAYS_S),
        retry_delay_seconds=_RETRY_DELAYS_S,
        retry_condition_fn=is_transient,
        cache_policy=CacheKeyFnPolicy(cache_key_fn=key),
        persist_result=True,
    )
    report, position, number = ReconcileReport(), None, 1
    while True:
        of_page: ReconcileReport = await reconciling(number, position)
        report = joined([report, of_page])
        position, number = of_page.next_position, number + 1
        if position is None:
            return report


async def bring_unseen_in_step(
    two_way: TwoWaySync, unseen: Sequence[tuple[Side, str]], names: dict[Side, str]
) -> ReconcileReport:
    """Bring in step what is paired and was in no list any more, as one task run.

    Args:
        two_way: Both sides.
        unseen: From `find_all_unseen`.
        names: What people call the sides.

    Raises:
        IntegrationError: As in `reconcile_list`.
    """

    async def follow() -> ReconcileReport:
        return await in_thread(bring_in_step, two_way, unseen, names)

    following = Task(
        fn=follow,
        name="what is gone",
        retries=len(_RETRY_DELAYS_S),
        retry_delay_seconds=_RETRY_DELAYS_S,
        retry_condition_fn=is_transient,
        persist_result=False,
    )
    report: ReconcileReport = await following()
    return report


def find_all_unseen(
    two_way: TwoWaySync, seen: Mapping[Side, Sequence[str]]
) -> list[tuple[Side, str]]:
    """Side and id of every paired record that was in no list.

    Args:
        two_way: Both sides.
        seen: Side to the ids of all its records.
    """
    ids, unseen, after = {side: set(found) for side, found in seen.items()}, [], ""
    while True:
        check_cancelled()
        of_page, following = two_way.find_unseen(ids, after=after, limit=_UNSEEN_AT_ONCE)
        unseen += of_page
        if following is None:
            return unseen
        after = following


def joined(reports: Sequence[ReconcileReport]) -> ReconcileReport:
    """Several reports as one."""
    return ReconcileReport(
        seen=[id_ for report in reports for id_ in report.seen],
        brought_in_step=[records for report in reports for records in report.brought_in_step],
        refused=[records for report in reports for records in report.refused],
    )


async def show_reconciled(key: str, report: ReconcileReport) -> None:
    """Show in the UI what was brought in step, and what could not be; nothing if there is none.

    Args:
        key: Of the artifacts, in small letters with dashes.
        report: Of the whole walk.
    """
    for records, which, description in (
        (report.brought_in_step, "changes", "What was brought in step."),
        (report.refused, "refused", "What could not be brought in step, and what to do."),
    ):
        if records:
            await acreate_table_artifact(
                key=f"{key}-{which}", description=description, table=_rows(records)
            )


def _rows(records: Sequence[RecordReport]) -> list[dict[str, str]]:
    return [{"Record": each.record, "What": each.what} for each in records[:_SHOWN]]
