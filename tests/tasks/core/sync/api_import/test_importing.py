"""Imports over real sockets: from the marketplace's API into the application."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack, nullcontext, suppress
from contextvars import copy_context
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from threading import Thread

import orjson
import pytest

from blocks.errors import (
    BadPayloadError,
    IntegrationError,
    MisconfiguredError,
    UpstreamFailedError,
    UpstreamRejectedError,
)
from blocks.http_api import HttpApi
from tasks.core.sync.api_import.importing import import_changes
from tasks.core.sync.api_import.source import Range
from tasks.core.sync.batches.sink import Sent


def order_numbers(own_app):
    return sorted(order["order_no"] for order in own_app.records("orders"))


def test_everything_is_imported_once(imports, marketplace_api, own_app, sent, earlier):
    """The first import takes all pages; the second one asks from before the cursor, sends none."""
    ids = [marketplace_api.place(1, at=earlier(-10 * number))[0] for number in range(7)]
    outcome = imports.run()
    assert (outcome.result, outcome.pages, outcome.counts.records) == ("done", 3, 7)
    assert outcome.counts.created == 7
    assert order_numbers(own_app) == ids
    assert imports.cursor() == earlier(-60)
    assert sent() == 3

    outcome = imports.run()
    assert (outcome.counts.records, outcome.counts.known) == (0, 7)
    assert marketplace_api.queries[-1]["updated_since"].startswith(f"{earlier(0):%Y-%m-%dT%H:%M}")
    assert sent() == 3


def test_a_tie_at_the_cursor_is_not_lost(imports, marketplace_api, own_app, earlier):
    """Orders that change in the very second of the cursor come after the import, and come in."""
    marketplace_api.place(2, at=earlier(0))
    imports.run()
    assert imports.cursor() == earlier(0)
    marketplace_api.place(2, at=earlier(0))
    outcome = imports.run()
    assert (outcome.counts.records, outcome.counts.known) == (2, 2)
    assert order_numbers(own_app) == [order["id"] for order in marketplace_api.orders()]


def test_ties_over_page_borders_are_taken_once(imports, marketplace_api, own_app, earlier):
    """Ten orders of one second in pages of three: each arrives once."""
    marketplace_api.place(10, at=earlier(0))
    outcome = imports.run()
    assert (outcome.counts.records, outcome.counts.created) == (10, 10)
    assert imports.run().counts.records == 0


def test_late_rows_are_taken_within_the_overlap(imports, marketplace_api, own_app, earlier):
    """A record that appears with a change before the cursor comes in, and the cursor stays."""
    marketplace_api.place(2, at=earlier(0))
    imports.run()
    [late] = marketplace_api.place(1, at=earlier(59))
    [too_late] = marketplace_api.place(1, at=earlier(61))
    assert imports.run().counts.records == 1
    assert late in order_numbers(own_app)
    assert too_late not in order_numbers(own_app)
    assert imports.cursor() == earlier(0)


def test_a_changed_record_in_the_overlap_is_taken_again(imports, marketplace_api, own_app, earlier):
    """Known is a record in this content only: a change within the same second counts."""
    changed, _ = marketplace_api.place(2, at=earlier(0))
    imports.run()
    marketplace_api.change(changed, at=earlier(0), state="shipped")
    outcome = imports.run()
    assert (outcome.counts.records, outcome.counts.updated) == (1, 1)
    assert {o["order_no"]: o["status"] for o in own_app.records("orders")}[changed] == "shipped"


def test_what_is_remembered_is_bounded_by_the_overlap(imports, marketplace_api, earlier):
    """After a long import only what the next one may meet again is remembered."""
    for number in range(30):
        marketplace_api.place(1, at=earlier(-30 * number))
    imports.run()
    [stream] = imports.cursors.streams()
    assert stream.taken == 3


def test_a_failure_resumes_at_its_page(imports, marketplace_api, own_app, sent, earlier):
    """A later page breaks; the next attempt asks for that page and sends nothing twice."""
    for number in range(12):
        marketplace_api.place(1, at=earlier(-number))
    with ExitStack() as opened:
        job = imports.job(opened)
        inner = job.sink.send

        def breaks_the_marketplace(records, **options):
            marketplace_api.faults.broken = 1_000_000  # the next page may be here already
            return inner(records, **options)

        job.sink.send = breaks_the_marketplace
        with pytest.raises(UpstreamFailedError):
            import_changes(job)
    assert 1 <= sent() <= 2
    assert imports.cursor() is None
    marketplace_api.faults.broken = 0
    marketplace_api.queries.clear()
    outcome = imports.run(owner="the next run")
    assert (outcome.result, outcome.is_resumed, outcome.counts.records) == ("done", True, 12)
    assert "cursor" in marketplace_api.queries[0]
    assert sent() == 4
    assert len(order_numbers(own_app)) == 12


def test_a_batch_whose_fate_is_unknown_is_sent_again_under_its_key(
    imports, marketplace_api, own_app, earlier
):
    """The application took it and its answer was lost: the second time has no second effect."""
    marketplace_api.place(3, at=earlier(0))
    own_app.behave("drop_connection", applied=True, remaining=1)
    with pytest.raises(Exception, match="cut"):
        imports.run()
    marketplace_api.queries.clear()
    outcome = imports.run()
    assert (outcome.counts.records, outcome.counts.created) == (3, 3)
    assert marketplace_api.queries == []
    assert own_app.requests()["requests"][-1]["replayed"]


def test_a_token_that_expires_in_the_middle_is_renewed_once(
    imports, marketplace_api, own_app, earlier
):
    """A page is refused with 401, one token is fetched, and nothing is missing."""
    for number in range(9):
        marketplace_api.place(1, at=earlier(-number))
    with ExitStack() as opened:
        job = imports.job(opened)
        inner = job.sink.send
        calls = []

        def expires(records, **options):
            calls.append(1)
            if len(calls) == 1:
                marketplace_api.requests.clear()
                marketplace_api.expire_tokens()
            return inner(records, **options)

        job.sink.send = expires
        outcome = import_changes(job)
    assert outcome.counts.records == 9
    assert (marketplace_api.requests["token"], marketplace_api.requests["refused"]) == (1, 1)


def test_a_busy_api_is_waited_for(imports, marketplace_api, earlier):
    """One 429 with Retry-After costs a wait, not the import."""
    marketplace_api.place(3, at=earlier(0))
    marketplace_api.faults.busy = 1
    assert imports.run().counts.records == 3
    assert marketplace_api.requests["orders"] == 2


def test_an_answer_that_is_cut_is_asked_for_again(imports, marketplace_api, earlier):
    """Half a page is no page."""
    marketplace_api.place(3, at=earlier(0))
    marketplace_api.faults.cut = 1
    assert imports.run().counts.records == 3


def test_a_cursor_that_repeats_ends_the_import(imports, marketplace_api, own_app, earlier):
    """An API that goes in a circle is found out, and the cursor stays where it was."""
    marketplace_api.place(9, at=earlier(0))
    marketplace_api.faults.repeat_cursor = True
    with pytest.raises(BadPayloadError, match="circle"):
        imports.run()
    assert imports.cursor() is None
    marketplace_api.faults.repeat_cursor = False
    imports.run()
    assert len(order_numbers(own_app)) == 9


def test_a_position_that_is_no_longer_known_is_read_from_further_back(
    imports, marketplace_api, own_app, earlier
):
    """Cursors of APIs expire: the window is read from where it was, without sending twice."""
    for number in range(9):
        marketplace_api.place(1, at=earlier(-number))
    assert imports.run(listing={"max_pages_a_run": 2}).result == "unfinished"
    marketplace_api.faults.forget_cursors = True
    marketplace_api.queries.clear()
    with pytest.raises(UpstreamRejectedError):  # the second page of the new walk is unknown, too
        imports.run()
    assert "cursor" in marketplace_api.queries[0]
    assert "cursor" not in marketplace_api.queries[1]
    marketplace_api.faults.forget_cursors = False
    outcome = imports.run()
    assert outcome.counts.created == 9
    assert outcome.counts.records == 9


def test_a_long_import_goes_on_in_the_next_run(imports, marketplace_api, own_app, earlier):
    """A run ends after its pages and says so; the cursor waits for the end of the window."""
    for number in range(8):
        marketplace_api.place(1, at=earlier(-number))
    results = [imports.run(listing={"max_pages_a_run": 1}) for _ in range(3)]
    assert [outcome.result for outcome in results] == ["unfinished", "unfinished", "done"]
    assert [outcome.cursor is None for outcome in results] == [True, True, False]
    assert results[-1].counts.records == 8


def test_a_bad_record_is_rejected_once(imports, marketplace_api, own_app, earlier):
    """It is told with its field, the others go in, and the overlap does not tell it again."""
    bad, _, _ = marketplace_api.place(3, at=earlier(0))
    marketplace_api.change(bad, at=earlier(0), amount="-1.00")
    outcome = imports.run()
    assert (outcome.counts.records, outcome.counts.rejected) == (2, 1)
    [reject] = outcome.rejects
    assert (reject.id, reject.field) == (bad, "total")
    assert "greater than or equal to 0" in reject.reason
    assert imports.run().counts.rejected == 0
    marketplace_api.change(bad, at=earlier(-1), amount="1.00")
    assert imports.run().counts.created == 1


def test_a_record_that_cannot_be_mapped_or_known_is_rejected(
    imports, marketplace_api, own_app, earlier
):
    """Missing parts, missing identities and instants without a zone reject single records."""
    marketplace_api.place(1, at=earlier(0))
    whole = marketplace_api.orders()[0]
    without_buyer = {**whole, "id": "MP-a"}
    del without_buyer["buyer"]
    marketplace_api.put(without_buyer)
    marketplace_api.put({**whole, "id": "MP-b", "updated_at": whole["updated_at"].strip("Z")})
    outcome = imports.run(listing={"params": {"limit": 10}})
    assert outcome.counts.records == 1
    assert sorted((r.id, r.field) for r in outcome.rejects) == [
        ("MP-a", ""),
        ("MP-b", "updated_at"),
    ]


def test_a_record_that_only_the_application_refuses_is_rejected_alone(
    imports, marketplace_api, own_app, earlier
):
    """The rest of its batch goes in."""
    refused, *_ = marketplace_api.place(3, at=earlier(0))
    marketplace_api.change(refused, at=earlier(0), buyer={"name": "far too long" * 2000})
    outcome = imports.run()
    assert (outcome.counts.records, outcome.counts.rejected) == (2, 1)
    assert outcome.rejects[0].id == refused
    assert "refused by the application" in outcome.rejects[0].reason


class Choosy:
    """An application in memory that names one record a refusal, and remembers keys."""

    def __init__(self):
        self.refuses, self.keys, self.taken = set(), {}, []
        self.is_away_after = None

    def send(self, records, *, count, idempotency_key):
        orders = [record["order_no"] for record in orjson.loads(records)]
        bad = [
            {"index": index, "field": "status", "reason": "no"}
            for index, order in enumerate(orders)
            if order in self.refuses
        ]
        if bad:
            raise UpstreamRejectedError(
                "no", system="app", operation="send", status=422, details=tuple(bad[:1])
            )
        if self.keys.setdefault(idempotency_key, records) != records:
            raise UpstreamRejectedError("key of another", system="app", operation="send")
        if self.is_away_after == len(orders):
            self.is_away_after = None
            raise UpstreamFailedError("cut off", system="app", operation="send")
        self.taken += orders
        return Sent(created=count)


def test_an_application_that_names_one_bad_record_at_a_time_takes_the_good_ones(
    imports, marketplace_api, earlier
):
    """Each refusal takes out what it names, and the stream goes on."""
    first, second, third = marketplace_api.place(3, at=earlier(0))
    application = Choosy()
    application.refuses = {first, third}
    outcome = imports.run(sink=application)
    assert application.taken == [second]
    assert (outcome.result, outcome.counts.records, outcome.counts.rejected) == ("done", 1, 2)
    assert {reject.id for reject in outcome.rejects} == {first, third}


def test_what_is_left_of_a_refused_batch_has_a_key_of_its_content(
    imports, marketplace_api, earlier
):
    """After a crash the application may refuse others: that is another rest, under another key."""
    first, second, third = marketplace_api.place(3, at=earlier(0))
    application = Choosy()
    application.refuses, application.is_away_after = {first}, 2
    with pytest.raises(UpstreamFailedError):
        imports.run(sink=application)
    application.refuses = {second}
    assert imports.run(sink=application).counts.records == 2
    assert application.taken == [first, third]


def test_a_page_without_one_good_record_stops_the_import(
    imports, marketplace_api, own_app, earlier
):
    """So much is wrong with the mapping, not the records: the cursor waits until it is mended."""
    marketplace_api.place(25, at=earlier(0))
    listing = {"params": {"limit": 50}}
    with pytest.raises(BadPayloadError, match=r"none of 25 records is good.*press Retry"):
        imports.run(listing=listing, reshape=lambda shown: {"order_no": shown["id"]})
    assert imports.cursor() is None
    assert imports.run(listing=listing).counts.records == 25


def test_a_batch_that_is_refused_as_a_whole_is_read_again(
    imports, marketplace_api, own_app, earlier
):
    """The next attempt does not send the same again, but what it reads then."""
    first, *_ = marketplace_api.place(3, at=earlier(0))
    own_app.behave("error", status=422, remaining=1)
    with pytest.raises(UpstreamRejectedError):
        imports.run()
    marketplace_api.change(first, at=earlier(-1), state="cancelled")
    imports.run()
    stored = {order["order_no"]: order["status"] for order in own_app.records("orders")}
    assert (len(stored), stored[first]) == (3, "cancelled")


def test_an_application_without_the_permission_keeps_the_batch(
    imports, marketplace_api, own_app, earlier
):
    """Credentials are mended in the block: the batch in hand is sent then."""
    marketplace_api.place(3, at=earlier(0))
    own_app.behave("error", status=403, remaining=1)
    with pytest.raises(MisconfiguredError):
        imports.run()
    marketplace_api.queries.clear()
    assert imports.run().counts.records == 3
    assert marketplace_api.queries == []


def test_a_record_from_the_future_does_not_carry_the_cursor_there(
    imports, marketplace_api, own_app, earlier
):
    """What changes after it in truth is still found, and it is not sent again and again."""
    marketplace_api.place(1, at=datetime.now(UTC) + timedelta(days=400))
    imports.run()
    assert imports.cursor() <= datetime.now(UTC)
    assert imports.run().counts.records == 0
    marketplace_api.place(1, at=datetime.now(UTC))
    assert imports.run().counts.records == 1


def test_a_list_in_another_order_is_an_error_unless_it_is_declared(
    imports, marketplace_api, own_app, earlier
):
    """Read by another instant than it is sorted by, the list is refused, or read with care."""
    for number, hour in enumerate((3, 1, 2)):
        [id_] = marketplace_api.place(1, at=earlier(number))
        marketplace_api.change(
            id_, at=earlier(number), placed_at=f"2026-03-01T{hour:02}:00:00+00:00"
        )
    by_placing = {"changed_at_path": "placed_at", "since_param": "placed_since"}
    with pytest.raises(BadPayloadError, match="not in the order of placed_at"):
        imports.run(listing=by_placing)
    imports.cursors.set("orders", None)
    assert imports.run(listing={**by_placing, "is_ordered": False}).counts.records == 3
    assert imports.cursor() == datetime(2026, 3, 1, 3, tzinfo=UTC)


def test_a_backfill_sends_its_range_again_and_leaves_the_cursor(
    imports, marketplace_api, own_app, earlier
):
    """Records the application lost come back, without those outside; what is new still comes."""
    ids = [marketplace_api.place(1, at=earlier(-10 * number))[0] for number in range(6)]
    imports.run()
    cursor = imports.cursor()
    for id_ in ids:
        own_app.http.delete(f"/api/v1/orders/{id_}").raise_for_status()
    outcome = imports.run(backfill=Range(earlier(-10), earlier(-40)))
    assert outcome.counts.created == 3
    assert order_numbers(own_app) == ids[1:4]
    assert imports.cursor() == cursor
    marketplace_api.place(1, at=earlier(-70))
    assert imports.run().counts.records == 1


def test_a_backfill_resumes_apart_from_what_is_new(imports, marketplace_api, own_app, earlier):
    """Both are under way at once, each at its own page."""
    for number in range(8):
        marketplace_api.place(1, at=earlier(-number))
    one_page = {"max_pages_a_run": 1}
    imports.run(listing=one_page)
    backfill = Range(earlier(0), earlier(-6))
    assert imports.run(listing=one_page, backfill=backfill).result == "unfinished"
    assert imports.cursors.streams()[0].open_windows == ("", backfill.name)
    outcome = imports.run(backfill=backfill)
    assert (outcome.result, outcome.counts.records, outcome.cursor) == ("done", 6, None)
    outcome = imports.run()
    assert (outcome.is_resumed, outcome.counts.records) == (True, 8)


def test_a_backfill_ends_at_its_end_also_where_the_api_has_none(
    imports, marketplace_api, own_app, earlier
):
    """Without a parameter for the end, the records say when it is reached."""
    for number in range(9):
        marketplace_api.place(1, at=earlier(-number))
    backfill = Range(earlier(0), earlier(-2))
    outcome = imports.run(listing={"until_param": None}, backfill=backfill)
    assert (outcome.counts.records, outcome.pages) == (2, 1)


def test_of_two_runs_at_once_one_imports(imports, marketplace_api, own_app, sent, earlier):
    """The other one ends at once and says which run is at it."""
    marketplace_api.place(3, at=earlier(0))
    told = []
    with ExitStack() as opened:
        job = imports.job(opened)
        inner = job.sink.send

        def while_sending(records, **options):
            told.append(imports.run(owner="another"))
            return inner(records, **options)

        job.sink.send = while_sending
        assert import_changes(job).result == "done"
    [other] = told
    assert (other.result, other.counts.records) == ("busy", 0)
    assert "run run is at it" in other.reason
    assert sent() == 1


def test_a_cancelled_run_stops_behind_its_page(
    imports, marketplace_api, own_app, sent, earlier, cancelling
):
    """What it sent is noted, and it keeps nobody waiting; the next run goes on."""
    marketplace_api.place(9, at=earlier(0))

    def work(cancel):
        with ExitStack() as opened:
            job = imports.job(opened, start_at=earlier(10))
            import_changes(job, progress=lambda _fraction: cancel())

    cancelling(work)
    assert sent() == 1
    outcome = imports.run(owner="next")
    assert (outcome.result, outcome.is_resumed, outcome.counts.records) == ("done", True, 9)
    assert sent() == 3


def test_a_cancelled_run_waits_for_no_page(imports, marketplace_api, earlier, cancelling):
    """When the source says nothing any more, the stream is free for the next run all the same."""
    connections = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        silent = HttpApi(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}")

        def work(cancel):
            def cancel_when_asked():
                connections.append(listener.accept()[0])
                cancel()

            Thread(target=copy_context().run, args=(cancel_when_asked,)).start()
            with ExitStack() as opened:
                import_changes(imports.job(opened, source=silent))

        cancelling(work)
    for connection in connections:
        connection.close()
    marketplace_api.place(2, at=earlier(0))
    assert imports.run(owner="next").counts.records == 2


def test_progress_is_told_by_the_time_the_window_covers(imports, marketplace_api, own_app, earlier):
    """From 0 to 1, ever further."""
    for number in range(12):
        marketplace_api.place(1, at=earlier(-240 * number))
    told = []
    with ExitStack() as opened:
        import_changes(imports.job(opened, start_at=earlier(10)), progress=told.append)
    assert told == sorted(told)
    assert len(told) == 5
    assert 0 < told[0] < 0.5
    assert told[-1] == 1


SLICES = {"slice_s": 60, "at_once": 4}


def test_a_long_window_is_read_in_slices_at_once(imports, marketplace_api, own_app, earlier):
    """Each slice has its own pages, several are under way at a time, and nothing is missing."""
    for number in range(60):
        marketplace_api.place(1, at=earlier(-10 * number))
    marketplace_api.faults.delay_s = 0.05
    under_way, most = [], []

    def note():
        under_way.append(1)
        most.append(len({query["updated_since"] for query in marketplace_api.queries[-4:]}))

    marketplace_api.on_orders = note
    told = []
    with ExitStack() as opened:
        job = imports.job(opened, listing=SLICES, start_at=earlier(0))
        outcome = import_changes(job, progress=told.append)
    assert (outcome.result, outcome.counts.records, outcome.counts.created) == ("done", 60, 60)
    assert order_numbers(own_app) == [order["id"] for order in marketplace_api.orders()]
    assert max(most) == 4
    assert told == sorted(told)
    assert imports.cursor() == earlier(-590)
    assert imports.run(listing=SLICES).counts.records == 0


def test_slices_resume_each_at_its_page(imports, marketplace_api, own_app, sent, earlier):
    """After a failure no page is sent again, and no slice that was read is asked for again."""
    for number in range(40):
        marketplace_api.place(1, at=earlier(-10 * number))
    options = {"listing": SLICES, "start_at": earlier(0)}
    with ExitStack() as opened:
        job = imports.job(opened, **options)
        inner = job.sink.send

        def breaks_the_marketplace(records, **kwargs):
            if sent() == 4:
                marketplace_api.faults.broken = 1_000_000
            return inner(records, **kwargs)

        job.sink.send = breaks_the_marketplace
        with pytest.raises(UpstreamFailedError):
            import_changes(job)
    marketplace_api.faults.broken = 0
    done = len(own_app.records("orders"))
    outcome = imports.run(**options)
    assert (outcome.is_resumed, outcome.counts.records, outcome.counts.created) == (True, 40, 40)
    assert 12 <= done < 40


def test_a_backfill_in_slices_has_its_range_and_no_more(imports, marketplace_api, own_app, earlier):
    """The last slice ends where the range ends."""
    ids = [marketplace_api.place(1, at=earlier(-10 * number))[0] for number in range(40)]
    outcome = imports.run(listing=SLICES, backfill=Range(earlier(-100), earlier(-350)))
    assert outcome.counts.records == 25
    assert order_numbers(own_app) == ids[10:35]


NUMBERED = {
    "pagination": {
        "kind": "page_number",
        "records_path": "records",
        "total_records_path": "total",
        "page_size": 3,
    }
}


def at_second_page(marketplace_api, change):
    """Let something change, once, when the second page is asked for."""

    def change_once():
        if len(marketplace_api.queries) == 2:
            marketplace_api.on_orders = type(marketplace_api.faults)  # does nothing
            change()

    marketplace_api.on_orders = change_once


@pytest.mark.parametrize("at_once", [1, 4])
def test_numbered_pages_that_shift_lose_nothing(
    imports, marketplace_api, own_app, earlier, at_once
):
    """A record of the first page changes while the second is read: all behind it move up one."""
    ids = [marketplace_api.place(1, at=earlier(-number))[0] for number in range(12)]

    at_second_page(
        marketplace_api,
        lambda: marketplace_api.change(ids[0], at=earlier(-100), state="shipped"),
    )
    outcome = imports.run(listing={**NUMBERED, "at_once": at_once})
    assert outcome.result == "done"
    assert order_numbers(own_app) == ids
    stored = {order["order_no"]: order["status"] for order in own_app.records("orders")}
    assert stored[ids[0]] == "shipped"
    assert imports.run(listing=NUMBERED).counts.records == 0


@pytest.mark.parametrize("is_backfill", [False, True])
def test_a_record_that_a_shift_shows_on_two_pages_is_taken_once(
    imports, marketplace_api, own_app, earlier, is_backfill
):
    """One comes in before the page that is read: the last of this page is the next one's first."""
    ids = [marketplace_api.place(1, at=earlier(-number))[0] for number in range(6)]

    at_second_page(marketplace_api, lambda: ids.extend(marketplace_api.place(1, at=earlier(1))))
    backfill = Range(earlier(10), earlier(-10)) if is_backfill else None
    outcome = imports.run(listing=NUMBERED, backfill=backfill)
    assert outcome.result == "done"
    taken = 6 if is_backfill else 7
    assert outcome.counts.records == outcome.counts.created == taken
    assert len(order_numbers(own_app)) == taken


def test_a_list_that_shifts_all_the_time_does_not_keep_a_run_for_ever(
    imports, marketplace_api, own_app, earlier
):
    """The run reads to the end once, ends with its pages, and the window waits for a next one."""
    ids = [marketplace_api.place(1, at=earlier(-number))[0] for number in range(7)]
    left = iter(range(60))

    def shift():
        for number in left:
            marketplace_api.change(
                ids[number % 7], at=earlier(-100 - number), amount=f"{number}.00"
            )
            return

    marketplace_api.on_orders = shift
    outcome = imports.run(listing={**NUMBERED, "max_pages_a_run": 2})
    assert (outcome.result, outcome.cursor) == ("unfinished", None)
    assert len(marketplace_api.queries) < 20
    marketplace_api.on_orders = type(marketplace_api.faults)
    assert imports.run(listing={**NUMBERED, "max_pages_a_run": 2}).result == "unfinished"
    assert imports.run(listing={**NUMBERED, "max_pages_a_run": 2}).result == "done"
    assert order_numbers(own_app) == ids


def test_numbered_pages_are_read_from_the_start_after_a_failure(
    imports, marketplace_api, own_app, earlier
):
    """What was taken is left out; records that moved to pages read before are not missed."""
    ids = [marketplace_api.place(1, at=earlier(-number))[0] for number in range(6)]
    own_app.behave("error", status=500, remaining=1)
    with pytest.raises(UpstreamFailedError):
        imports.run(listing=NUMBERED)
    marketplace_api.change(ids[1], at=earlier(-100))
    outcome = imports.run(listing=NUMBERED)
    assert outcome.counts.records == 7
    assert order_numbers(own_app) == ids


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("listing", [{}, SLICES, NUMBERED], ids=["cursor", "slices", "numbered"])
def test_whatever_happens_the_application_ends_with_what_the_marketplace_has(
    imports, marketplace_api, own_app, earlier, listing, seed
):
    """Ties, late rows, changes and failures on either side in any order: nothing is missing."""
    chance = random.Random(seed)
    now = 0
    imports.now = lambda: earlier(now)
    for _ in range(25):
        now -= chance.randint(0, 20)
        for _ in range(chance.randint(0, 4)):
            marketplace_api.place(1, at=earlier(now + chance.choice((0, 0, 0, 5, 50))))
        orders = marketplace_api.orders()
        for order in chance.sample(orders, min(2, len(orders))):
            amount = f"{chance.randint(1, 99)}.00"
            marketplace_api.change(order["id"], at=earlier(now), amount=amount)
        fault = chance.choice(("none", "none", "broken", "cut", "forgets", "app", "app", "refuses"))
        marketplace_api.faults.broken = 2 if fault == "broken" else 0
        marketplace_api.faults.cut = 2 if fault == "cut" else 0
        marketplace_api.faults.forget_cursors = fault == "forgets"
        if fault == "app":
            lost = {"remaining": chance.randint(1, 2), "applied": chance.random() < 0.5}
            own_app.behave("drop_connection", **lost)
        if fault == "refuses":
            own_app.behave("error", status=422, remaining=1)
        with nullcontext() if fault == "none" else suppress(IntegrationError):
            pages = {"max_pages_a_run": chance.choice((1, 2, 100))}
            imports.run(listing={**listing, **pages}, start_at=earlier(60))
        own_app.behave("ok")
    marketplace_api.faults = type(marketplace_api.faults)()
    while imports.run(listing=listing).result != "done":
        pass
    imports.run(listing=listing)
    expected = {order["id"]: Decimal(order["amount"]) for order in marketplace_api.orders()}
    stored = {order["order_no"]: Decimal(order["total"]) for order in own_app.records("orders")}
    assert stored == expected
