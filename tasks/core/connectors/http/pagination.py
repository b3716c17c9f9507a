"""The ways in which APIs page long lists, as options that name the fields of one API.

Each style says how to request a page and where the next one is; `paging` makes the requests.
A position stays valid: it can be stored, and a later run can continue from it.
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
    """One page as received.

    Attributes:
        position: The requested position.
        body: The decoded JSON.
        records: The records in it.
        headers: By name, in any case.
        url: Where it came from, for relative links.
        where: What errors say about the call.
    """

    position: Position
    body: Any
    records: list[Any]
    headers: httpx.Headers
    url: httpx.URL
    where: Where


@dataclass(frozen=True, slots=True)
class PageRequest:
    """How to request a page: parameters added to the first request, or another address."""

    parameters: dict[str, Any] = field(default_factory=dict)
    url: str | None = None


class PaginationStyle(BaseModel):
    """The options that all styles share."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    records_path: str = Field(
        default="",
        description="Where the list of records is, e.g. data.items; empty if at the top.",
    )
    max_pages: PositiveInt = Field(
        default=10_000, description="More pages than this are taken for an endless loop."
    )
    send_in: Literal["query", "body"] = Field(
        default="query", description="Where the API expects the parameters that choose a page."
    )

    def ask(self, position: Position) -> PageRequest:
        """Return how to request the page at a position."""
        raise NotImplementedError

    def following(self, page: PageResponse) -> Position:
        """Return the position after a page; None if it was the last one."""
        raise NotImplementedError


class SinglePage(PaginationStyle):
    """Everything in one response."""

    kind: Literal["single"] = "single"

    def ask(self, position: Position) -> PageRequest:
        """Return the request unchanged."""
        return PageRequest()

    def following(self, page: PageResponse) -> Position:
        """Return None."""
        return None


class CountedStyle(PaginationStyle):
    """Pages found by counting; an empty page is always the last one.

    Records that are inserted or removed meanwhile shift the pages: request a stable order, and
    set `total_change` to fail where a skipped record matters.
    """

    total_records_path: str | None = Field(
        default=None, description="Where the number of all records is, if the API reports it."
    )
    has_more_path: str | None = Field(
        default=None, description="Where it says whether there are more, if the API reports that."
    )
    short_page_is_last: bool = Field(
        default=False,
        description="Whether a page with fewer records than requested ends the list.",
    )
    total_change: Literal["continue", "fail"] = Field(
        default="continue", description="What to do when the number of all records changes."
    )

    def total(self, page: PageResponse) -> int | None:
        """Return the total number of pages or records according to this page, if it says so."""
        if self.total_records_path is None:
            return None
        return count_of(page.body, self.total_records_path, page.where)

    def expected(self, page: PageResponse) -> Sequence[int] | None:
        """Return the positions after the first page, if it says how many there are."""
        raise NotImplementedError

    def _may_go_on(self, page: PageResponse, size: int | None) -> bool:
        if not page.records:
            return False
        if self.short_page_is_last and size is not None and len(page.records) < size:
            return False
        return self.has_more_path is None or flag_of(page.body, self.has_more_path, page.where)


class PageNumber(CountedStyle):
    """Pages numbered by the API."""

    kind: Literal["page_number"] = "page_number"
    page_param: str = Field(default="page", description="Parameter that names the page.")
    first_page: int = Field(default=1, description="Number of the first page, usually 1 or 0.")
    size_param: str | None = Field(
        default=None, description="Parameter for the number of records per page."
    )
    page_size: PositiveInt | None = Field(default=None, description="Records per page.")
    total_pages_path: str | None = Field(
        default=None, description="Where the number of all pages is, if the API reports it."
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
        default="limit", description="Parameter for the number of records per page."
    )
    limit: PositiveInt = Field(default=100, description="Records to request per page.")

    def ask(self, position: Position) -> PageRequest:
        """Offset and limit as parameters."""
        return PageRequest({self.offset_param: int(position or 0), self.limit_param: self.limit})

    def following(self, page: PageResponse) -> Position:
        """Return the offset after the received records, unless they were the last."""
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
    """The response body holds the next page's cursor; without one it is the last page."""

    kind: Literal["cursor"] = "cursor"
    cursor_path: str = Field(default="next_cursor", description="Where the next cursor is.")
    cursor_param: str = Field(default="cursor", description="Parameter that takes the cursor.")

    def ask(self, position: Position) -> PageRequest:
        """The cursor as parameter."""
        return PageRequest() if position is None else PageRequest({self.cursor_param: position})

    def following(self, page: PageResponse) -> Position:
        """Return the cursor in the body; missing, null or empty means the end."""
        cursor = optional_field(page.body, self.cursor_path)
        return _position(cursor, self.cursor_path, page)


class HeaderCursor(PaginationStyle):
    """A response header holds the next page's cursor; without one it is the last page."""

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
    """The next page starts after the last record of this one."""

    kind: Literal["last_record"] = "last_record"
    id_path: str = Field(default="id", description="Where a record's id is.")
    after_param: str = Field(default="starting_after", description="Parameter for the last id.")
    has_more_path: str | None = Field(
        default=None,
        description="Where it says whether there are more; without it, an empty page is the last.",
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
    """A Link header points to the next page (RFC 8288), as at GitHub."""

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
    """The response body holds the next page's address."""

    kind: Literal["next_url"] = "next_url"
    next_path: str = Field(default="next", description="Where the next address is.")

    def ask(self, position: Position) -> PageRequest:
        """The address."""
        return PageRequest(url=None if position is None else str(position))

    def following(self, page: PageResponse) -> Position:
        """Return the address in the body, made absolute; missing, null or empty means the end."""
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
