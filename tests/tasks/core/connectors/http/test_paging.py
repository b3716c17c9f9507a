"""Walking through lists: whole, in order, in bounds, and never in circles."""

from __future__ import annotations

import threading
import time
from urllib.parse import parse_qs, urlsplit

import httpx
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocks.errors import (
    BadPayloadError,
    MisconfiguredError,
    TransientError,
    UpstreamRejectedError,
)
from sandbox.systems.scripted_api import ScriptedReply
from tasks.core.connectors.http.client import ApiClient
from tasks.core.connectors.http.pagination import (
    BodyCursor,
    HeaderCursor,
    LastRecord,
    LinkHeader,
    NextUrl,
    OffsetLimit,
    PageNumber,
    SinglePage,
)
from tasks.core.connectors.http.paging import (
    Page,
    fetch_page,
    fetch_pages,
    fetch_records,
    read_ahead,
)


class Orders:
    """A list of orders that can be read in every style, as a function from request to answer."""

    def __init__(self, count, size=3):
        self.records = [{"id": number} for number in range(count)]
        self.size = size
        self.asked = []
        self.lock = threading.Lock()

    def __call__(self, request):
        query = dict(request.url.params) or orjson.loads(request.content or b"{}")
        with self.lock:
            self.asked.append(query)
        size = int(query.get("limit", self.size))
        start = self.start(query, size)
        page, end = self.records[start : start + size], start + size
        body = {
            "items": page,
            "total": len(self.records),
            "pages": -(-len(self.records) // size),
            "more": end < len(self.records),
        }
        headers = {}
        if body["more"]:
            body |= {"cursor": f"c{end}", "next": f"/v1/orders?cursor=c{end}"}
            headers = {"X-Next": f"c{end}", "Link": f'<?cursor=c{end}>; rel="next"'}
        return httpx.Response(200, json=body, headers=headers)

    def start(self, query, size):
        if "page" in query:
            return (int(query["page"]) - 1) * size
        if "starting_after" in query:
            return int(query["starting_after"]) + 1
        return int(query.get("offset") or query.get("cursor", "c0")[1:])


STYLES = [
    PageNumber(records_path="items"),
    PageNumber(records_path="items", total_pages_path="pages"),
    PageNumber(records_path="items", total_records_path="total", page_size=3, size_param="limit"),
    PageNumber(records_path="items", has_more_path="more"),
    OffsetLimit(records_path="items", limit=3),
    OffsetLimit(records_path="items", limit=3, total_records_path="total"),
    OffsetLimit(records_path="items", limit=3, short_page_is_last=True),
    BodyCursor(records_path="items", cursor_path="cursor"),
    HeaderCursor(records_path="items", cursor_header="X-Next"),
    LastRecord(records_path="items"),
    LastRecord(records_path="items", has_more_path="more"),
    LinkHeader(records_path="items"),
    NextUrl(records_path="items"),
]
COUNTED = [style for style in STYLES if getattr(style, "total_pages_path", None)] + [
    style for style in STYLES if getattr(style, "total_records_path", None)
]


@pytest.mark.parametrize("count", [0, 1, 3, 7, 9])
@pytest.mark.parametrize("style", STYLES, ids=lambda style: style.kind)
def test_every_style_reads_the_whole_list_once(client_of, style, count):
    """Whatever the style and wherever the last page ends, each record comes once, in order."""
    orders = Orders(count)
    assert list(fetch_records(client_of(orders), "/orders", style)) == orders.records


@pytest.mark.parametrize("style", STYLES, ids=lambda style: style.kind)
def test_every_style_goes_on_from_a_kept_position(client_of, style):
    """A walk that starts at the position after a page brings exactly what comes after it."""
    orders = Orders(8)
    first = fetch_page(client_of(orders), "/orders", style)
    rest = fetch_records(client_of(orders), "/orders", style, position=first.next_position)
    assert first.records + list(rest) == orders.records


def test_single_page_asks_once(client_of):
    """A list that is not paged is one request."""
    orders = Orders(2)
    assert list(fetch_records(client_of(orders), "/orders", SinglePage(records_path="items"))) == (
        orders.records
    )
    assert len(orders.asked) == 1


def test_answer_may_be_the_list_itself(client_of):
    """Without a path the answer is the list."""
    client = client_of(lambda request: httpx.Response(200, json=[1, 2]))
    assert fetch_page(client, "/orders", SinglePage()).records == [1, 2]


def test_given_query_goes_with_every_page(client_of):
    """Filters are repeated for each page; an address of the API's own stands for itself."""
    orders = Orders(5)
    style = BodyCursor(records_path="items", cursor_path="cursor")
    list(fetch_pages(client_of(orders), "/orders", style, params={"status": "open"}))
    assert orders.asked == [{"status": "open"}, {"status": "open", "cursor": "c3"}]
    orders.asked.clear()
    list(fetch_pages(client_of(orders), "/orders", NextUrl(records_path="items"), params={"a": 1}))
    assert orders.asked == [{"a": "1"}, {"cursor": "c3"}]


def test_page_may_be_chosen_in_the_body(client_of):
    """An API that is asked by POST gets its cursor in the body, and may be asked again."""
    orders = Orders(5)
    fails = [httpx.Response(500)]
    client = client_of(lambda request: fails.pop() if fails else orders(request))
    style = BodyCursor(records_path="items", cursor_path="cursor", send_in="body")
    pages = fetch_pages(client, "/orders", style, method="POST", json={"status": "open"})
    assert [record for page in pages for record in page.records] == orders.records
    assert orders.asked == [{"status": "open"}, {"status": "open", "cursor": "c3"}]


@pytest.mark.parametrize("cursors", [["a", "a"], ["a", "b", "a"], ["a", "b", "c", "b"]])
def test_cursor_that_comes_again_ends_the_walk(client_of, cursors):
    """A circle of any length is an error, not an endless loop."""
    answers = iter([*cursors, None])
    client = client_of(
        lambda request: httpx.Response(200, json={"items": [1], "next_cursor": next(answers)})
    )
    with pytest.raises(BadPayloadError, match="goes in a circle"):
        list(fetch_pages(client, "/orders", BodyCursor(records_path="items")))


@pytest.mark.parametrize(
    "style", [PageNumber(), OffsetLimit(limit=2)], ids=lambda style: style.kind
)
def test_page_that_comes_again_ends_the_walk(client_of, style):
    """An API that does not know the page parameter gives the same page for ever: an error."""
    client = client_of(lambda request: httpx.Response(200, json=[{"id": 1}, {"id": 2}]))
    with pytest.raises(BadPayloadError, match="two pages are the same"):
        list(fetch_pages(client, "/orders", style))


@pytest.mark.parametrize("at_once", [1, 3])
def test_walk_has_a_largest_number_of_pages(client_of, at_once):
    """More pages than max_pages is an error; exactly as many is not."""
    for count, fine in ((9, True), (10, False)):
        style = PageNumber(records_path="items", total_pages_path="pages", max_pages=3)
        pages = fetch_pages(client_of(Orders(count)), "/orders", style, at_once=at_once)
        if fine:
            assert len(list(pages)) == 3
        else:
            with pytest.raises(BadPayloadError, match=r"max_pages \(3\)"):
                list(pages)


def test_walk_has_a_largest_number_of_records(client_of):
    """More records than max_records is an error, so that none is cut off silently."""
    style = PageNumber(records_path="items")
    assert len(list(fetch_records(client_of(Orders(6)), "/orders", style, max_records=6))) == 6
    with pytest.raises(BadPayloadError, match=r"max_records \(5\)"):
        list(fetch_records(client_of(Orders(6)), "/orders", style, max_records=5))


@pytest.mark.parametrize(
    "target", ["https://evil.example/orders", "//evil.example/orders", "http://api.example/v1/x"]
)
@pytest.mark.parametrize("style", [NextUrl(records_path="items"), LinkHeader(records_path="items")])
def test_next_address_on_another_origin_is_refused(client_of, style, target):
    """Credentials do not follow a link to another host or to plain HTTP."""
    hosts = []

    def answer(request):
        hosts.append(request.url.host)
        return httpx.Response(
            200, json={"items": [1], "next": target}, headers={"Link": f"<{target}>; rel=next"}
        )

    with pytest.raises(BadPayloadError, match="another origin"):
        list(fetch_pages(client_of(answer), "/orders", style))
    assert hosts == ["api.example"]


def growing(totals):
    """An API whose total is another one with each page."""
    given = iter(totals)

    def answer(request):
        return httpx.Response(
            200, json={"items": [request.url.params["page"]], "total": next(given)}
        )

    return answer


def test_changed_total_is_followed_or_fails(client_of):
    """By default the newest total counts; where skipped records matter it fails for another try."""
    style = PageNumber(records_path="items", total_records_path="total", page_size=1)
    assert len(list(fetch_pages(client_of(growing([2, 3, 3])), "/orders", style))) == 3
    strict = style.model_copy(update={"total_change": "fail"})
    with pytest.raises(TransientError, match="changed from 2 to 3"):
        list(fetch_pages(client_of(growing([2, 3, 3])), "/orders", strict))


def test_walk_reads_no_page_before_it_is_wanted(client_of):
    """One page at a time: the next request is made when the page before has been used."""
    orders = Orders(9)
    pages = fetch_pages(client_of(orders), "/orders", PageNumber(records_path="items"))
    next(pages)
    assert len(orders.asked) == 1


def test_pages_at_once_are_not_hoarded(client_of):
    """Only as many pages are asked for ahead as are allowed, however slowly they are used."""
    orders = Orders(30)
    style = PageNumber(records_path="items", total_pages_path="pages")
    pages = fetch_pages(client_of(orders), "/orders", style, at_once=3)
    next(pages)
    next(pages)
    time.sleep(0.1)  # for requests that should not be made
    pages.close()
    assert len(orders.asked) <= 4


@settings(deadline=None)
@given(count=st.integers(1, 25), at_once=st.integers(2, 5), size=st.integers(1, 4))
def test_pages_at_once_are_the_same_list(count, at_once, size):
    """Reading at once gives the same records in the same order as one by one."""
    style = OffsetLimit(records_path="items", total_records_path="total", limit=size)
    orders = Orders(count)
    with httpx.Client(
        base_url="https://api.example/v1", transport=httpx.MockTransport(orders)
    ) as http:
        client = ApiClient(http, system="https://api.example")
        found = list(fetch_records(client, "/orders", style, at_once=at_once))
    assert found == orders.records
    assert len(orders.asked) == -(-count // size)


@pytest.mark.parametrize("style", COUNTED, ids=lambda style: style.kind)
def test_requests_at_once_are_bounded(scripted_api, style):
    """On a real server as many requests are under way as allowed, never more, in order."""
    orders = Orders(21)
    together = threading.Barrier(3)
    under_way, most = [0], [0]

    def answer(received):
        query = {name: value[0] for name, value in parse_qs(urlsplit(received.path).query).items()}
        with orders.lock:
            under_way[0] += 1
            most[0] = max(most[0], under_way[0])
        if query.get("page") != "1" and query.get("offset") != "0":
            together.wait(5)
        url = httpx.URL("http://h/v1/orders", params=query)
        response = orders(httpx.Request("GET", url))
        with orders.lock:
            under_way[0] -= 1
        return ScriptedReply(response.content)

    scripted_api.answer(*[answer] * 7)
    with httpx.Client(base_url=scripted_api.url) as http:
        client = ApiClient(http, system=scripted_api.url)
        assert list(fetch_records(client, "/orders", style, at_once=3)) == orders.records
    assert most == [3]


def test_short_page_among_pages_at_once_skips_nothing(client_of):
    """When the API answers fewer records than asked for, the walk goes on from where it is."""
    orders = Orders(20)

    def answer(request):
        offset = int(request.url.params["offset"])
        size = 2 if offset == 4 else 4
        return httpx.Response(
            200, json={"items": orders.records[offset : offset + size], "total": 20}
        )

    style = OffsetLimit(records_path="items", total_records_path="total", limit=4)
    assert list(fetch_records(client_of(answer), "/orders", style, at_once=3)) == orders.records


def test_list_that_grows_is_read_to_its_end(client_of):
    """Records that come while reading at once are read, too."""
    orders = Orders(6)

    def answer(request):
        if request.url.params["page"] == "2":
            orders.records.append({"id": 6})
        return orders(request)

    style = PageNumber(records_path="items", total_pages_path="pages")
    assert list(fetch_records(client_of(answer), "/orders", style, at_once=2)) == orders.records


def test_list_that_shrinks_ends_early(client_of):
    """Pages that are gone meanwhile are not missed, even if asking for them fails."""

    def answer(request):
        page = int(request.url.params["page"])
        if page > 2:
            return httpx.Response(404)
        return httpx.Response(200, json={"items": [page], "pages": 4 if page == 1 else 2})

    style = PageNumber(records_path="items", total_pages_path="pages")
    assert list(fetch_records(client_of(answer), "/orders", style, at_once=4)) == [1, 2]


def test_failing_page_ends_pages_at_once(client_of):
    """The pages before a failing one are delivered, then its error is raised."""

    def answer(request):
        page = int(request.url.params["page"])
        if page == 3:
            return httpx.Response(404)
        return httpx.Response(200, json={"items": [page], "pages": 9})

    style = PageNumber(records_path="items", total_pages_path="pages")
    found = []
    records = fetch_records(client_of(answer), "/orders", style, at_once=2)
    with pytest.raises(UpstreamRejectedError):
        found.extend(records)
    assert found == [1, 2]


@pytest.mark.parametrize(
    "style",
    [BodyCursor(records_path="items"), PageNumber(records_path="items")],
    ids=lambda style: style.kind,
)
def test_pages_at_once_need_a_total(client_of, style):
    """Where the pages cannot be known beforehand the mistake is told."""
    with pytest.raises(MisconfiguredError, match="set total_records_path or total_pages_path"):
        list(fetch_pages(client_of(Orders(5)), "/orders", style, at_once=2))


def numbered_pages(count, made):
    for number in range(count):
        made.append(number)
        yield Page(number, number + 1 if number + 1 < count else None, [number])


def test_reading_ahead_yields_all_pages_in_order():
    """Also of an empty walk and of one page."""
    for count in (0, 1, 5):
        pages = read_ahead(numbered_pages(count, []))
        assert [page.records for page in pages] == [[number] for number in range(count)]


def test_reading_ahead_is_one_page_ahead():
    """While the caller has a page the next one is fetched, and not the one after."""
    made = []
    pages = read_ahead(numbered_pages(5, made))
    next(pages)
    next(pages)
    assert len(made) <= 3
    pages.close()


def test_an_error_ahead_is_raised_at_its_page():
    """The pages before it are yielded; closing ends the walk."""
    closed = []

    def breaks():
        try:
            yield Page(None, 1, ["first"])
            raise TransientError("broken", system="api", operation="GET")
        finally:
            closed.append(True)

    pages = read_ahead(breaks())
    assert next(pages).records == ["first"]
    with pytest.raises(TransientError):
        next(pages)
    assert closed
