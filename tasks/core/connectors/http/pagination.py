"""The ways in which APIs hand out long lists, as options that name the fields of one API.

Each style says how a page is asked for and where the next one is; `paging` does the asking.
A position names a page for good: it can be kept, and a later run can go on from it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import httpx
from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from blocks.errors import BadPayloadError
from tasks.core.connectors.http.errors import Where
from tasks.core.connectors.http.links import parse_links
from tasks.core.connectors.http.response_fields import count_of, flag_of, optional_field
from tasks.core.connectors.http.response_fields import field as field_of

# None is the first page. Numbers, cursors and addresses depend on the style.
Position = int | str | None


@dataclass(frozen=True, slots=True)
class PageResponse:
    """One page as it came.

    Attributes:
        position: What was asked for.
        body: The decoded JSON.
        records: Those in it.
        headers: By names in any case.
        url: Where it came from, for relative links.
        where: What errors say.
    """

    position: Position
    body: Any
    records: list[Any]
    headers: httpx.Headers
    url: httpx.URL
    where: Where


@dataclass(frozen=True, slots=True)
class PageRequest:
    """How to ask for a page: parameters added to the first request, or another address."""

    parameters: dict[str, Any] = field(default_factory=dict)
    url: str | None = None


class PaginationStyle(BaseModel):
    """What all styles share."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    records_path: str = Field(
        default="",
        description="Where the list of records is, e.g. data.items; empty if it is the answer.",
    )
    max_pages: PositiveInt = Field(
        default=10_000, description="More pages than this are taken for an endless loop."
    )
    send_in: Literal["query", "body"] = Field(
        default="query", description="Where the API wants the parameters that choose a page."
    )

    def ask(self, position: Position) -> PageRequest:
        """How to ask for the page at a position."""
        raise NotImplementedError

    def following(self, page: PageResponse) -> Position:
        """The position after a page; None if it was the last one."""
        raise NotImplementedError


class SinglePage(PaginationStyle):
    """Everything in one answer."""

    kind: Literal["single"] = "single"

    def ask(self, position: Position) -> PageRequest:
        """The request as it is."""
        return PageRequest()

    def following(self, page: PageResponse) -> Position:
        """None."""
        return None


class CountedStyle(PaginationStyle):
    """Pages found by counting; an empty page is always the last one.

    Records that are inserted or removed meanwhile shift the pages: ask for a stable order, and
    let `total_change` fail where a skipped record matters.
    """

    total_records_path: str | None = Field(
        default=None, description="Where the number of all records is, if the API tells it."
    )
    has_more_path: str | None = Field(
        default=None, description="Where it says whether there are more, if the API tells it."
    )
    short_page_is_last: bool = Field(
        default=False,
        description="Whether a page with fewer records than asked for ends the list.",
    )
    total_change: Literal["continue", "fail"] = Field(
        default="continue", description="What to do when the number of all records changes."
    )

    def total(self, page: PageResponse) -> int | None:
        """How many pages or records there are by this page, if it tells."""
        if self.total_records_path is None:
            return None
        return count_of(page.body, self.total_records_path, page.where)

    def expected(self, page: PageResponse) -> Sequence[int] | None:
        """The positions after the first page, if it tells how many there are."""
        raise NotImplementedError

    def _may_go_on(self, page: PageResponse, size: int | None) -> bool:
        if not page.records:
            return False
        if self.short_page_is_last and size is not None and len(page.records) < size:
            return False
        return self.has_more_path is None or flag_of(page.body, self.has_more_path, page.where)


class PageNumber(CountedStyle):
    """Pages by number."""

    kind: Literal["page_number"] = "page_number"
    page_param: str = Field(default="page", description="Parameter that names the page.")
    first_page: int = Field(default=1, description="Number of the first page, mostly 1 or 0.")
    size_param: str | None = Field(
        default=None, description="Parameter that says how many records a page should have."
    )
    page_size: PositiveInt | None = Field(default=None, description="Records in a page.")
    total_pages_path: str | None = Field(
        default=None, description="Where the number of all pages is, if the API tells it."
    )

    def ask(self, position: Position) -> PageRequest:
        """Page and size as parameters."""
        parameters: dict[str, Any] = {self.page_param: self._number(position)}
        if self.size_param is not None:
            parameters[self.size_param] = self.page_size
        return PageRequest(parameters)

    def following(self, page: PageResponse) -> Position:
        """The next number, unless this was the last page."""
        pages = self._pages(page)
        number = self._number(page.position) + 1
        if pages is not None and number - self.first_page >= pages:
            return None
        return number if self._may_go_on(page, self.page_size) else None

    def total(self, page: PageResponse) -> int | None:
        """As in `CountedStyle`."""
        if self.total_pages_path is not None:
            return count_of(page.body, self.total_pages_path, page.where)
        return super().total(page)

    def expected(self, page: PageResponse) -> Sequence[int] | None:
        """As in `CountedStyle`."""
        pages = self._pages(page)
        first = self._number(page.position) + 1
        return None if pages is None else range(first, max(first, self.first_page + pages))

    def _pages(self, page: PageResponse) -> int | None:
        total = self.total(page)
        if total is None or self.total_pages_path is not None:
            return total
        return None if self.page_size is None else math.ceil(total / self.page_size)

    def _number(self, position: Position) -> int:
        return self.first_page if position is None else int(position)


class OffsetLimit(CountedStyle):
    """Pages by the number of records before them."""

    kind: Literal["offset"] = "offset"
    offset_param: str = Field(default="offset", description="Parameter that names the offset.")
    limit_param: str = Field(
        default="limit", description="Parameter that says how many records a page should have."
    )
    limit: PositiveInt = Field(default=100, description="Records to ask for in a page.")

    def ask(self, position: Position) -> PageRequest:
        """Offset and limit as parameters."""
        return PageRequest({self.offset_param: int(position or 0), self.limit_param: self.limit})

    def following(self, page: PageResponse) -> Position:
        """The offset after the records that came, unless these were the last."""
        offset = int(page.position or 0) + len(page.records)
        total = self.total(page)
        if total is not None and offset >= total:
            return None
        return offset if self._may_go_on(page, self.limit) else None

    def expected(self, page: PageResponse) -> Sequence[int] | None:
        """As in `CountedStyle`; a first page that is short shows the API's own limit."""
        total = self.total(page)
        if total is None or not page.records:
            return None
        offset, step = int(page.position or 0), len(page.records)
        return range(offset + step, max(offset + step, total), step)


class BodyCursor(PaginationStyle):
    """The answer names a cursor for the next page; without one it was the last."""

    kind: Literal["cursor"] = "cursor"
    cursor_path: str = Field(default="next_cursor", description="Where the next cursor is.")
    cursor_param: str = Field(default="cursor", description="Parameter that takes the cursor.")

    def ask(self, position: Position) -> PageRequest:
        """The cursor as parameter."""
        return PageRequest() if position is None else PageRequest({self.cursor_param: position})

    def following(self, page: PageResponse) -> Position:
        """The cursor in the body; missing, null and empty are the end."""
        cursor = optional_field(page.body, self.cursor_path)
        return _position(cursor, self.cursor_path, page)


class HeaderCursor(PaginationStyle):
    """A header names a cursor for the next page; without one it was the last."""

    kind: Literal["header_cursor"] = "header_cursor"
    cursor_header: str = Field(description="Header with the next cursor, e.g. X-Next-Cursor.")
    cursor_param: str = Field(default="cursor", description="Parameter that takes the cursor.")

    def ask(self, position: Position) -> PageRequest:
        """The cursor as parameter."""
        return PageRequest() if position is None else PageRequest({self.cursor_param: position})

    def following(self, page: PageResponse) -> Position:
        """The cursor in the header."""
        return page.headers.get(self.cursor_header) or None


class LastRecord(PaginationStyle):
    """The next page begins after the last record of this one."""

    kind: Literal["last_record"] = "last_record"
    id_path: str = Field(default="id", description="Where in a record its identity is.")
    after_param: str = Field(
        default="starting_after", description="Parameter that takes the last identity."
    )
    has_more_path: str | None = Field(
        default=None,
        description="Where it says whether there are more; else an empty page is the last one.",
    )

    def ask(self, position: Position) -> PageRequest:
        """The last identity as parameter."""
        return PageRequest() if position is None else PageRequest({self.after_param: position})

    def following(self, page: PageResponse) -> Position:
        """The identity of the last record, if there may be more."""
        if not page.records:
            return None
        path = self.has_more_path
        if path is not None and not flag_of(page.body, path, page.where):
            return None
        last = field_of(page.records[-1], self.id_path, page.where)
        return _position(last, self.id_path, page)


class LinkHeader(PaginationStyle):
    """A Link header leads to the next page (RFC 8288), as at GitHub."""

    kind: Literal["link_header"] = "link_header"
    relation: str = Field(default="next", description="Relation of the link to follow.")

    def ask(self, position: Position) -> PageRequest:
        """The address of the link."""
        return PageRequest(url=None if position is None else str(position))

    def following(self, page: PageResponse) -> Position:
        """The address of the link, made absolute."""
        links = parse_links(page.headers.get("link", ""))
        return _address(links.get(self.relation.lower()), page)


class NextUrl(PaginationStyle):
    """The answer holds the address of the next page."""

    kind: Literal["next_url"] = "next_url"
    next_path: str = Field(default="next", description="Where the next address is.")

    def ask(self, position: Position) -> PageRequest:
        """The address."""
        return PageRequest(url=None if position is None else str(position))

    def following(self, page: PageResponse) -> Position:
        """The address in the body, made absolute; missing, null and empty are the end."""
        address = _position(optional_field(page.body, self.next_path), self.next_path, page)
        return _address(address, page)


Pagination = Annotated[
    SinglePage
    | PageNumber
    | OffsetLimit
    | BodyCursor
    | HeaderCursor
    | LastRecord
    | LinkHeader
    | NextUrl,
    Field(discriminator="kind"),
]


def _position(value: Any, path: str, page: PageResponse) -> Position:
    if value is None or value == "":
        return None
    if isinstance(value, (str, int)) and not isinstance(value, bool):
        return value
    raise BadPayloadError(f"{path} is a {type(value).__name__}, not text or a number", **page.where)


def _address(target: Position, page: PageResponse) -> Position:
    if target is None or target == "":
        return None
    try:
        return str(page.url.join(str(target)))
    except httpx.InvalidURL as exc:
        raise BadPayloadError("the address of the next page is not a URL", **page.where) from exc
