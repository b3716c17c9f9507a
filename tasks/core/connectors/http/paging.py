"""Fetches the pages of a list, one by one or several at once, and never in circles."""

from __future__ import annotations

import contextvars
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Any

from blocks.errors import BadPayloadError, MisconfiguredError, TransientError
from tasks.core.connectors.http.client import ApiClient
from tasks.core.connectors.http.errors import Where
from tasks.core.connectors.http.pagination import (
    CountedStyle,
    PageResponse,
    PaginationStyle,
    Position,
)
from tasks.core.connectors.http.response_fields import records_of
from tasks.core.threads import DaemonThreadPoolExecutor, check_cancelled, result_of


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list.

    Attributes:
        position: Its position; a later walk may start here.
        next_position: The next page's position; None if this is the last.
        records: In the API's order.
        total: Total records or pages according to this page, if the style counts them.
    """

    position: Position
    next_position: Position
    records: list[Any] = field(repr=False)
    total: int | None = None


def fetch_page(
    client: ApiClient,
    path: str,
    pagination: PaginationStyle,
    *,
    position: Position = None,
    params: Mapping[str, Any] | None = None,
    method: str = "GET",
    json: Mapping[str, Any] | None = None,
) -> Page:
    """Fetch the page at a position; without one, the first.

    Args:
        client: The API.
        path: As in `ApiClient.call`.
        pagination: How this list is paged.
        position: `next_position` of the previous page.
        params: Query of every page, e.g. the page size where the style has no option for it.
        method: GET, or POST for APIs that take the query in the body; it must not change data.
        json: Body of every request.

    Raises:
        BadPayloadError: The response lacks the fields that `pagination` names, or points to
            another origin.
        IntegrationError: As in `ApiClient.call`.
    """
    source = _Source(client, path, pagination, dict(params or {}), method, json)
    return source.page(position)


def fetch_pages(
    client: ApiClient,
    path: str,
    pagination: PaginationStyle,
    *,
    position: Position = None,
    params: Mapping[str, Any] | None = None,
    method: str = "GET",
    json: Mapping[str, Any] | None = None,
    max_records: int | None = None,
    at_once: int = 1,
) -> Iterator[Page]:
    """Yield the pages of a list in order, from a position to the end.

    Memory holds `at_once` + 1 pages.

    Args:
        client: The API.
        path: As in `ApiClient.call`.
        pagination: How this list is paged.
        position: Where to start; without one, at the first page.
        params: As in `fetch_page`.
        method: As in `fetch_page`.
        json: As in `fetch_page`.
        max_records: A longer list is an error, so that nothing is cut off silently.
        at_once: Requests in flight at a time; above 1 only for page numbers and offsets whose
            responses report the total.

    Raises:
        BadPayloadError: As in `fetch_page`; also if the list is too long or loops.
        TransientError: The total changed and `pagination` makes this an error.
        IntegrationError: As in `ApiClient.call`.
    """
    source = _Source(client, path, pagination, dict(params or {}), method, json)
    guard = _Guard(pagination, source.where, max_records)
    if at_once > 1:
        yield from _walk_at_once(source, position, guard, at_once)
    else:
        yield from _walk(source, position, guard)


def fetch_records(
    client: ApiClient, path: str, pagination: PaginationStyle, **options: Any
) -> Iterator[Any]:
    """Yield the records of a list one by one; options as in `fetch_pages`."""
    for page in fetch_pages(client, path, pagination, **options):
        yield from page.records


def read_ahead(pages: Iterator[Page]) -> Generator[Page, None, None]:
    """Fetch the next page while the caller processes this one.

    Args:
        pages: From `fetch_pages`; closed at the end.
    """
    pool = DaemonThreadPoolExecutor(1, "read-ahead")

    def following() -> Page | None:
        return next(pages, None)

    def fetch() -> Future[Page | None]:
        # Prefect's settings and run travel in the context.
        return pool.submit(contextvars.copy_context().run, following)

    try:
        under_way = fetch()
        while (page := result_of(under_way)) is not None:
            if page.next_position is None:
                yield page
                return
            under_way = fetch()
            yield page
    finally:
        pool.shutdown(cancel_futures=True)
        if isinstance(pages, Generator):
            with suppress(ValueError):  # a thread that was left behind is still at it
                pages.close()


@dataclass(frozen=True, slots=True)
class _Source:
    client: ApiClient
    path: str
    pagination: PaginationStyle
    params: dict[str, Any]
    method: str
    json: Mapping[str, Any] | None

    @property
    def where(self) -> Where:
        operation = f"{self.method} {self.path.partition('?')[0]}"
        return Where(system=self.client.system, operation=operation, record=None)

    def page(self, position: Position) -> Page:
        return self.page_of(self.answered(position))

    def page_of(self, answered: PageResponse) -> Page:
        style = self.pagination
        total = style.total(answered) if isinstance(style, CountedStyle) else None
        following = style.following(answered)
        return Page(answered.position, following, answered.records, total)

    def answered(self, position: Position) -> PageResponse:
        ask = self.pagination.ask(position)
        params, json = self.params, self.json
        if self.pagination.send_in == "query":
            params = {**params, **ask.parameters}
        else:
            json = {**(json or {}), **ask.parameters}
        response = self.client.call(
            self.method,
            ask.url or self.path,
            params=params if ask.url is None else None,
            json=json,
            operation=self.where["operation"],
            # Requesting a list changes nothing, whatever the method.
            repeatable=True,
        )
        body = response.json()
        records = records_of(body, self.pagination.records_path, self.where)
        return PageResponse(position, body, records, response.headers, response.url, self.where)


class _Guard:
    """Stops walks that would never end or would skip records unnoticed."""

    def __init__(self, pagination: PaginationStyle, where: Where, max_records: int | None) -> None:
        self._pagination = pagination
        self._where = where
        self._max_records = max_records
        self._pages = self._records = 0
        self._seen: set[Position] = set()
        self._before: Page | None = None

    def passed(self, page: Page) -> Page:
        """Return the page, or raise if something is wrong with it."""
        self._pages += 1
        self._records += len(page.records)
        self._seen.add(page.position)
        if self._max_records is not None and self._records > self._max_records:
            raise self._bad(f"more than max_records ({self._max_records}) records; ask for less")
        if page.next_position is not None and self._pages >= self._pagination.max_pages:
            raise self._bad(
                f"more than max_pages ({self._pagination.max_pages}) pages; ask for larger pages "
                "or less, or raise it"
            )
        if page.next_position is not None and page.next_position in self._seen:
            raise self._bad("the list goes in a circle: the next page was there already")
        if isinstance(self._pagination, CountedStyle):
            self._compare(self._pagination, page)
        self._before = page
        return page

    def _compare(self, style: CountedStyle, page: Page) -> None:
        before = self._before
        if before is None:
            return
        if page.records and page.records == before.records:
            raise self._bad(
                "two pages are the same: the API does not know the parameter that chooses a page"
            )
        if page.total != before.total and style.total_change == "fail":
            raise TransientError(
                f"the total changed from {before.total} to {page.total} while reading, so that "
                "records may have been skipped; read again from the start",
                **self._where,
            )

    def _bad(self, message: str) -> BadPayloadError:
        return BadPayloadError(message, **self._where)


def _walk(source: _Source, position: Position, guard: _Guard) -> Iterator[Page]:
    while True:
        check_cancelled()
        page = guard.passed(source.page(position))
        yield page
        if page.next_position is None:
            return
        position = page.next_position


def _walk_at_once(
    source: _Source, position: Position, guard: _Guard, at_once: int
) -> Iterator[Page]:
    first = source.answered(position)
    style = source.pagination
    expected = style.expected(first) if isinstance(style, CountedStyle) else None
    if expected is None:
        raise MisconfiguredError(
            "pages can be read at once only by number or offset, and if the answer tells how "
            "many there are; set total_records_path or total_pages_path, or at_once to 1",
            **source.where,
        )
    page = guard.passed(source.page_of(first))
    yield page
    with closing(_fetch_ahead(source, expected, at_once)) as ahead:
        for expected_position, future in ahead:
            if expected_position != page.next_position:
                break  # the list ended sooner, or a page was short: continue from there
            page = guard.passed(result_of(future))
            yield page
    if page.next_position is not None:
        yield from _walk(source, page.next_position, guard)


def _fetch_ahead(
    source: _Source, positions: Iterable[int], at_once: int
) -> Generator[tuple[int, Future[Page]]]:
    """Yield pages in order, with at most `at_once` requests in flight."""
    under_way: deque[tuple[int, Future[Page]]] = deque()
    pool = DaemonThreadPoolExecutor(at_once, "pages")
    try:
        for position in positions:
            # Prefect's settings and run travel in the context.
            context = contextvars.copy_context()
            under_way.append((position, pool.submit(context.run, source.page, position)))
            if len(under_way) == at_once:
                yield under_way.popleft()
        yield from under_way
    finally:
        pool.shutdown(cancel_futures=True)
