"""Reads a window's pages from a position on: one after the other, or slices of time side by side.

A list that is paged by cursor has to be read page after page. Where the API takes the end of a
range, a long window is cut into slices of time, each with a cursor of its own, and several are
read at once. The position of such a window says how far each slice has come.
"""

from __future__ import annotations

import contextvars
import math
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from tasks.core.connectors.http.client import ApiClient
from tasks.core.connectors.http.pagination import CountedStyle
from tasks.core.connectors.http.paging import Page, fetch_pages, read_ahead
from tasks.core.sync.api_import.source import IncrementalList
from tasks.core.sync.api_import.windows import Window
from tasks.core.threads import DaemonThreadPoolExecutor, first_done

_MOST_SLICES = 10_000


class Step(NamedTuple):
    """A page of a window.

    Attributes:
        records: In the list's order.
        chain: Pages of the same chain follow one another in the list.
        next_position: Where the window goes on behind this page; None if it was the last.
        fraction: How much of the window is read, if that is known.
    """

    records: list[Any]
    chain: int
    next_position: Any
    fraction: float | None


def walk(source: ApiClient, listing: IncrementalList, window: Window) -> Generator[Step]:
    """Yield the pages of a window from its position on.

    Raises:
        IntegrationError: As in `tasks.core.connectors.http.paging.fetch_pages`.
    """

    def pages(
        since_at: datetime | None, until_at: datetime | None, position: Any
    ) -> Iterator[Page]:
        return fetch_pages(
            source,
            listing.path,
            listing.pagination,
            position=position,
            params=listing.asking_for(since_at, until_at),
            at_once=listing.at_once if isinstance(listing.pagination, CountedStyle) else 1,
        )

    plan = _plan(listing, window)
    if plan is not None:
        yield from _walk_slices(plan, pages, listing.at_once)
        return
    ahead = read_ahead(pages(window.since_at, window.until_at, window.position))
    with closing(ahead):
        for page in ahead:
            yield Step(page.records, 0, page.next_position, None)


@dataclass(slots=True)
class _Plan:
    """Slices of equal length, and how far each has come.

    Attributes:
        since_at: Where the first begins.
        step_s: Their length.
        count: How many there are.
        until_at: Where the last one ends; None if it has no end.
        begun: How many were begun.
        open: Number to next position of those that were begun and are not at their end.
    """

    since_at: datetime
    step_s: int
    count: int
    until_at: datetime | None
    begun: int = 0
    open: dict[int, Any] = field(default_factory=dict)

    def bounds(self, number: int) -> tuple[datetime, datetime | None]:
        """Begin and end of a slice."""
        begin = self.since_at + timedelta(seconds=self.step_s * number)
        is_last = number == self.count - 1
        return begin, self.until_at if is_last else begin + timedelta(seconds=self.step_s)

    def position(self) -> Any:
        """As the window keeps it; None if all is read."""
        if self.begun == self.count and not self.open:
            return None
        return {
            "since": self.since_at.isoformat(),
            "step_s": self.step_s,
            "count": self.count,
            "begun": self.begun,
            "open": [[number, position] for number, position in self.open.items()],
        }


def _plan(listing: IncrementalList, window: Window) -> _Plan | None:
    """The slices of a window; None if it is not to be cut."""
    kept = window.position
    if isinstance(kept, dict):
        return _Plan(
            datetime.fromisoformat(kept["since"]),
            kept["step_s"],
            kept["count"],
            window.until_at,
            kept["begun"],
            dict(kept["open"]),
        )
    if kept is not None or listing.slice_s is None or window.since_at is None:
        return None
    since_at = window.since_at.replace(microsecond=0)
    length = (min(window.until_at or window.opened_at, window.opened_at) - since_at).total_seconds()
    step_s = max(listing.slice_s, math.ceil(length / _MOST_SLICES))
    count = math.ceil(length / step_s)
    return _Plan(since_at, step_s, count, window.until_at) if count > 1 else None


def _walk_slices(
    plan: _Plan,
    pages: Callable[[datetime | None, datetime | None, Any], Iterator[Page]],
    at_once: int,
) -> Generator[Step]:
    walks: dict[int, Iterator[Page]] = {}
    under_way: dict[Future[Page | None], int] = {}
    pool = DaemonThreadPoolExecutor(at_once, "slices")

    def fetch(number: int) -> None:
        # Prefect's settings and run travel in the context.
        context = contextvars.copy_context()
        under_way[pool.submit(context.run, _following, walks[number])] = number

    def begin(number: int) -> None:
        walks[number] = pages(*plan.bounds(number), plan.open[number])
        fetch(number)

    try:
        for number in list(plan.open):
            begin(number)
        while True:
            while len(walks) < at_once and plan.begun < plan.count:
                plan.open[plan.begun] = None
                begin(plan.begun)
                plan.begun += 1
            if not under_way:
                return
            for future in first_done(under_way):
                number = under_way.pop(future)
                page = future.result()
                if page is None or page.next_position is None:
                    del plan.open[number], walks[number]
                else:
                    plan.open[number] = page.next_position
                    fetch(number)
                records = [] if page is None else page.records
                finished = plan.begun - len(plan.open)
                yield Step(records, number, plan.position(), finished / plan.count)
    finally:
        pool.shutdown(cancel_futures=True)


def _following(pages: Iterator[Page]) -> Page | None:
    return next(pages, None)
