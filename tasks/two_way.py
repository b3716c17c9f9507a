"""Tasks that walk through both sides of a two-way integration, page by page, resumable."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prefect import Task
from prefect.artifacts import acreate_table_artifact
from prefect.cache_policies import CacheKeyFnPolicy
from prefect.runtime import flow_run

from tasks.api import is_transient
from tasks.core.connectors.http.client import ApiClient
from tasks.core.connectors.http.pagination import PaginationStyle, Position
from tasks.core.connectors.http.paging import fetch_page
from tasks.core.sync.two_way.identity_map.sides import Side
from tasks.core.sync.two_way.records import Found
from tasks.core.sync.two_way.syncing import TwoWaySync
from tasks.core.sync.two_way.walking import Told, WalkReport, bring_in_step, bring_page_in_step

_RETRY_DELAYS_S = [1.0, 5.0]
_UNSEEN_AT_ONCE = 500
_SHOWN = 500


async def walk_list(
    two_way: TwoWaySync,
    side: Side,
    name: str,
    api: ApiClient,
    path: str,
    pagination: PaginationStyle,
    found: Callable[[Any], Found],
    *,
    page_size: Mapping[str, int],
) -> WalkReport:
    """Bring in step whatever differs of one side's list, a task run a page.

    A retry of the flow run goes on at the page that failed.

    Args:
        two_way: Both sides.
        side: Whose list it is.
        name: What people call this side.
        api: Its API.
        path: Of the list.
        pagination: How it is paged.
        found: Makes a record of the list one of the two sides.
        page_size: The parameter that asks for so many records a page.

    Raises:
        IntegrationError: The list cannot be read, or a record cannot be written just now.
    """

    def look_through(position: Position) -> WalkReport:
        page = fetch_page(api, path, pagination, position=position, params=page_size)
        records = [found(record) for record in page.records]
        return bring_page_in_step(two_way, side, name, records, page.next_position)

    async def page(number: int, position: Position) -> WalkReport:  # noqa: ARG001 - names the run
        return await asyncio.to_thread(look_through, position)

    run_id = flow_run.id

    def key(_context: Any, parameters: dict[str, Any]) -> str:
        return f"two-way-{run_id}-{side}-{parameters['number']}"

    walking = Task(
        fn=page,
        name=f"page of {name}",
        task_run_name=f"page {{number}} of {name}",
        retries=len(_RETRY_DELAYS_S),
        retry_delay_seconds=_RETRY_DELAYS_S,
        retry_condition_fn=is_transient,
        cache_policy=CacheKeyFnPolicy(cache_key_fn=key),
        persist_result=True,
    )
    report, position, number = WalkReport(), None, 1
    while True:
        of_page: WalkReport = await walking(number, position)
        report = joined([report, of_page])
        position, number = of_page.next_position, number + 1
        if position is None:
            return report


async def bring_unseen_in_step(
    two_way: TwoWaySync, unseen: Sequence[tuple[Side, str]], names: dict[Side, str]
) -> WalkReport:
    """Bring in step what is paired and was in no list any more, as one task run.

    Args:
        two_way: Both sides.
        unseen: From `find_all_unseen`.
        names: What people call the sides.

    Raises:
        IntegrationError: As in `walk_list`.
    """

    async def follow() -> WalkReport:
        return await asyncio.to_thread(bring_in_step, two_way, unseen, names)

    following = Task(
        fn=follow,
        name="what is gone",
        retries=len(_RETRY_DELAYS_S),
        retry_delay_seconds=_RETRY_DELAYS_S,
        retry_condition_fn=is_transient,
        persist_result=False,
    )
    report: WalkReport = await following()
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
        of_page, following = two_way.find_unseen(ids, after=after, limit=_UNSEEN_AT_ONCE)
        unseen += of_page
        if following is None:
            return unseen
        after = following


def joined(reports: Sequence[WalkReport]) -> WalkReport:
    """Several reports as one."""
    return WalkReport(
        seen=[id_ for report in reports for id_ in report.seen],
        brought_in_step=[told for report in reports for told in report.brought_in_step],
        refused=[told for report in reports for told in report.refused],
    )


async def show_walk(key: str, report: WalkReport) -> None:
    """Show in the UI what was brought in step, and what could not be; nothing if there is none.

    Args:
        key: Of the artifacts, in small letters with dashes.
        report: Of the whole walk.
    """
    for told, which, description in (
        (report.brought_in_step, "changes", "What was brought in step."),
        (report.refused, "refused", "What could not be brought in step, and what to do."),
    ):
        if told:
            await acreate_table_artifact(
                key=f"{key}-{which}", description=description, table=_rows(told)
            )


def _rows(told: Sequence[Told]) -> list[dict[str, str]]:
    return [{"Record": each.record, "What": each.what} for each in told[:_SHOWN]]
