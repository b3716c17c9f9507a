"""Every request ends with an answer: cancelled, crashed and broken ones too."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from datetime import UTC, datetime

import pytest
from prefect import flow
from sqlalchemy import text

from blocks.errors import UpstreamBusyError
from tasks.core.intake.inbox.consumer import ConsumerSettings
from tasks.core.intake.inbox.new_delivery import NewDelivery, delivery_id
from tasks.core.intake.inbox.reply import Reply
from tasks.core.intake.inbox.reply_tables import AWAITED_REQUESTS
from tasks.core.intake.inbox.rows import LeaseOwner
from tasks.core.intake.inbox.store import Inbox
from tasks.core.intake.inbox.writer import InboxWriter
from tasks.core.intake.request_reply.requests import Requests, new_request_id, request_row
from tasks.request_reply import reply_to_requests, report_progress

# Prefect's own clients leave sockets to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

QUICK_SETTINGS = {
    "idle_timeout_s": 0,
    "retry_delays_s": [],
    "max_attempts": 2,
    "first_retry_s": 0,
}
QUICK = ConsumerSettings(**QUICK_SETTINGS)


class Asked:
    """Requests in an inbox, as the gateway stores them."""

    def __init__(self, inbox):
        self.inbox = inbox
        self.requests = Requests(inbox.engine)

    def ask(self, body):
        """Store a request; its id."""
        return asyncio.run(self._ask(json.dumps(body).encode()))

    def reply(self, request_id):
        """State, status and JSON of one request's answer."""
        view = self.requests.read(request_id)
        return view.state, view.reply.status, json.loads(view.reply.body)

    def wait_until(self, request_id, condition):
        """Wait until a request's view is as it should be."""
        while not condition(self.requests.read(request_id)):
            time.sleep(0.01)

    async def _ask(self, body):
        request_id, now = new_request_id(), datetime.now(UTC)
        row = request_row(
            id=request_id,
            delivery_id=delivery_id("asked", request_id),
            endpoint="asked",
            digest="",
            keep_s=600,
            received_at=now,
            callback=None,
            callback_wanted=False,
        )
        delivery = NewDelivery(
            integration="asked",
            endpoint="asked",
            event="question",
            dedup_key=request_id,
            ordering_key=None,
            headers=b"[]",
            body=body,
            payload=None,
            content_type="application/json",
            received_at=now,
            beside=(AWAITED_REQUESTS, row),
        )
        writer = InboxWriter(self.inbox.engine)
        await writer.start()
        await writer.store([delivery])
        await writer.close()
        return request_id


@pytest.fixture
def asked(inbox):
    return Asked(inbox)


def request_reply(respond, settings=QUICK):
    """A flow that answers with this function."""

    @flow(name="answering")
    async def reply():
        return await reply_to_requests("asked", respond, settings=settings)

    return reply


def test_a_cancelled_request_ends_as_cancelled(runs, asked, inbox):
    """Its handler is stopped where it waits, cleans up, and delivery and task run say cancelled."""
    told = []

    async def respond(delivery):
        if delivery.json() == "quick":
            return "done"
        try:
            report_progress("waiting for ever")
            await asyncio.sleep(600)
        finally:
            told.append("cleaned up")

    request_id, other = asked.ask("slow"), asked.ask("quick")

    def leave():
        asked.wait_until(request_id, lambda view: view.progress is not None)
        asked.requests.cancel(request_id)

    leaving = threading.Thread(target=leave)
    leaving.start()
    state = runs.start(request_reply(respond))
    leaving.join()
    assert told == ["cleaned up"]
    assert (state.is_completed(), state.message) == (True, "1 cancelled, 1 done")
    assert asked.reply(request_id)[:2] == ("cancelled", 409)
    assert asked.reply(other) == ("done", 200, "done")
    assert set(inbox.statuses().values()) == {"cancelled", "done"}
    assert sorted(runs.tasks().values()) == ["Cancelled", "Completed"]


def test_a_request_cancelled_before_its_turn_is_not_begun(runs, asked):
    """Nobody works for a caller that has left already."""
    begun = []
    request_id = asked.ask(1)
    asked.requests.cancel(request_id)
    runs.start(request_reply(begun.append))
    assert begun == []
    assert asked.reply(request_id)[0] == "cancelled"


def test_what_a_run_that_died_had_leased_is_answered_by_the_next(runs, asked, inbox):
    """A crash costs an attempt and no answer."""
    request_id = asked.ask(1)
    die_holding_everything(inbox)
    state = runs.start(request_reply(lambda delivery: delivery.json()))
    assert state.is_completed()
    assert asked.reply(request_id) == ("done", 200, 1)


def test_a_request_that_kills_every_run_is_answered_with_a_problem(runs, asked, inbox):
    """After all attempts have died its caller is told, with the run that gave up."""
    request_id = asked.ask(1)
    for _ in range(2):
        die_holding_everything(inbox)
    state = runs.start(request_reply(lambda delivery: delivery.json()))
    assert state.is_failed()
    status, document = asked.reply(request_id)[1:]
    assert (status, document["run"]) == (500, str(runs.last))


def die_holding_everything(inbox):
    """What remains of a run that was killed: claims whose lease runs out."""
    dead = Inbox(inbox.engine)
    assert dead.lease("asked", LeaseOwner("dead", lease_s=0.01), limit=10)
    dead.close()
    time.sleep(0.02)


def test_a_bug_is_a_problem_without_its_text(runs, asked):
    """The caller learns the run; what the exception says stays in its log."""

    def respond(_delivery):
        raise ZeroDivisionError("password hunter2")

    request_id = asked.ask(1)
    assert runs.start(request_reply(respond)).is_failed()
    state, status, document = asked.reply(request_id)
    assert (state, status, document["run"]) == ("failed", 500, str(runs.last))
    assert "hunter2" not in json.dumps(document)
    assert "ZeroDivision" not in json.dumps(document)


def test_transient_errors_are_tried_again_before_they_are_told(runs, asked, inbox):
    """While something is left to try the request is under way; then a problem is busy."""
    attempts = []

    def respond(delivery):
        attempts.append(delivery.attempt)
        raise UpstreamBusyError("spent", system="tax", operation="ask", retry_after_s=0)

    request_id = asked.ask(1)
    patient = ConsumerSettings(**(QUICK_SETTINGS | {"first_retry_s": 3600}))
    assert runs.start(request_reply(respond, patient)).is_failed()
    assert asked.requests.read(request_id).state == "waiting"
    with inbox.engine.begin() as connection:  # an hour passes
        connection.execute(text("UPDATE inbox_deliveries SET due_at = received_at"))
    assert runs.start(request_reply(respond, patient)).is_failed()
    assert attempts == [1, 2]
    state, status, _ = asked.reply(request_id)
    assert (state, status) == ("failed", 503)


def test_a_handler_that_takes_too_long_is_a_time_out(runs, asked):
    """504, and the run goes on with the next request."""

    async def respond(delivery):
        await asyncio.sleep(600 if delivery.json() == "slow" else 0)
        return Reply.json("ok")

    slow, quick = asked.ask("slow"), asked.ask("quick")
    settings = QUICK.model_copy(update={"handle_timeout_s": 0.5, "max_attempts": 1})
    assert runs.start(request_reply(respond, settings)).is_failed()
    assert asked.reply(slow)[1] == 504
    assert asked.reply(quick) == ("done", 200, "ok")
