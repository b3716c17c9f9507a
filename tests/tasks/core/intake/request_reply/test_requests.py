"""A request ends with its delivery, keeps its answer for a while, and is its caller's alone."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from tasks.core.intake.inbox.new_delivery import NewDelivery, delivery_id
from tasks.core.intake.inbox.operations import InboxOperations
from tasks.core.intake.inbox.reply import Reply
from tasks.core.intake.inbox.reply_tables import AWAITED_REQUESTS
from tasks.core.intake.inbox.request_ending import CALLBACKS
from tasks.core.intake.inbox.rows import LeaseOwner
from tasks.core.intake.inbox.settlement import Settlement
from tasks.core.intake.inbox.store import Inbox, LeasesLostError
from tasks.core.intake.inbox.writer import InboxWriter
from tasks.core.intake.request_reply.requests import (
    CallbackTarget,
    Progress,
    Requests,
    new_request_id,
    request_row,
)

TARGET = CallbackTarget("https://partner.example/x", "callback-signature/x", "/requests/x")


@dataclass
class Place:
    """A state database, a clock to turn, and both sides of a request."""

    engine: object
    now: datetime = field(default_factory=lambda: datetime(2026, 3, 1, 12, tzinfo=UTC))

    def __post_init__(self):
        self.requests = Requests(self.engine, clock=lambda: self.now)
        self.inbox = Inbox(self.engine, clock=lambda: self.now)

    def turn(self, seconds):
        self.now += timedelta(seconds=seconds)

    def ask(self, key="k", *, callback=None, callback_wanted=False, digest="d"):
        """Store a request as the gateway does; its id, whether it is new."""
        return asyncio.run(self._ask(key, callback, callback_wanted, digest))

    async def _ask(self, key, callback, callback_wanted, digest):
        request_id = new_request_id()
        row = request_row(
            id=request_id,
            delivery_id=delivery_id("quotes", key),
            endpoint="quotes",
            digest=digest,
            keep_s=60,
            received_at=self.now,
            callback=callback,
            callback_wanted=callback_wanted,
        )
        writer = InboxWriter(self.engine)
        await writer.start()
        [stored] = await writer.store(
            [
                NewDelivery(
                    integration="price_quote",
                    endpoint="quotes",
                    event="",
                    dedup_key=key,
                    ordering_key=None,
                    headers=b"[]",
                    body=b"{}",
                    payload=None,
                    content_type="application/json",
                    received_at=self.now,
                    beside=(AWAITED_REQUESTS, row),
                )
            ]
        )
        await writer.close()
        return request_id if stored.is_new else self.requests.of_delivery(stored.id).id

    def lease(self, integration="price_quote"):
        return self.inbox.lease(integration, LeaseOwner("run-1"), limit=10)

    def settle(self, delivery, reply, status="done"):
        self.inbox.settle([Settlement(delivery, status, reply=reply)])


@pytest.fixture
def place(state_database):
    place = Place(state_database)
    yield place
    place.inbox.close()


def test_a_request_from_arrival_to_answer(place):
    """It waits, runs and is done; its answer comes back byte for byte with its headers."""
    id_ = place.ask()
    assert place.requests.read(id_).state == "waiting"
    [delivery] = place.lease()
    assert place.requests.read(id_).state == "running"
    place.requests.tell_progress({delivery.id: Progress("half", 50)})
    assert place.requests.read(id_).progress == Progress("half", 50)
    reply = Reply(201, b"\x00\xff", "application/x-thing", (("ETag", '"ü"'),))
    assert place.requests.ended_among([id_]) == set()
    place.settle(delivery, reply)
    assert place.requests.ended_among([id_, "other"]) == {id_}
    view = place.requests.read(id_)
    assert (view.state, view.reply, view.run_id) == ("done", reply, "run-1")
    assert place.inbox.has_results_to_send is False


def test_ids_cannot_be_guessed():
    """192 random bits each."""
    ids = {new_request_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(len(each) == 32 for each in ids)


def test_an_answer_is_stored_with_its_delivery_or_not_at_all(place):
    """Who lost the claim cannot answer: the next claimer does."""
    id_ = place.ask()
    [late] = place.lease()
    place.turn(31)
    [delivery] = place.lease()
    with pytest.raises(LeasesLostError):
        place.settle(late, Reply.json("late"))
    assert place.requests.read(id_).reply is None
    place.settle(delivery, Reply.json("in time"))
    assert place.requests.read(id_).reply == Reply.json("in time")


def test_the_same_key_is_the_same_request(place):
    """However often it comes, there is one request; another key is another."""
    first, second, other = place.ask("a"), place.ask("a", digest="e"), place.ask("b")
    assert first == second != other
    assert place.requests.read(first).digest == "d"
    assert len(place.lease()) == 2


@pytest.mark.parametrize("status", ["dead_letter", "cancelled", "ignored"])
def test_every_end_is_an_end(place, status):
    """A request that failed or was cancelled has ended too, and says which."""
    id_ = place.ask()
    [delivery] = place.lease()
    place.settle(delivery, Reply.problem(500, "no"), status)
    states = {"dead_letter": "failed", "cancelled": "cancelled", "ignored": "done"}
    assert place.requests.read(id_).state == states[status]


def test_a_delivery_without_an_answer_leaves_nobody_hanging(place):
    """If the flow answers nobody, the status says so instead of nothing for ever."""
    id_ = place.ask()
    [delivery] = place.lease()
    place.inbox.settle([Settlement(delivery, "done")])
    view = place.requests.read(id_)
    assert (view.state, view.reply.status) == ("failed", 500)


def test_results_expire(place):
    """After the keep time they are gone, first from sight, then from the disk, then forgotten."""
    id_ = place.ask()
    [delivery] = place.lease()
    place.settle(delivery, Reply.json(1))
    place.turn(59)
    assert place.requests.purge() == 0
    assert place.requests.read(id_).reply is not None
    place.turn(1)
    assert place.requests.read(id_).state == "expired"
    assert place.requests.read(id_).reply is None
    assert place.requests.purge() == 1
    assert place.requests.purge() == 0
    assert place.requests.read(id_).state == "expired"
    place.turn(86_400)
    place.requests.purge()
    assert place.requests.read(id_) is None


def test_a_delivery_stays_as_long_as_its_result_is_told(place):
    """Purging the inbox leaves a request that is still remembered: its repetition is known."""
    inbox = InboxOperations(place.engine, clock=lambda: place.now)
    id_ = place.ask()
    [delivery] = place.lease()
    place.settle(delivery, Reply.json(1))
    place.turn(60 + 86_399)
    settled_long_ago = {"settled_before_at": place.now}
    assert inbox.purge(**settled_long_ago, dry_run=True) == 0
    assert inbox.purge(**settled_long_ago, dry_run=False) == 0
    assert place.ask() == id_
    place.turn(1)
    assert inbox.purge(**settled_long_ago, dry_run=True) == 1
    assert inbox.purge(**settled_long_ago, dry_run=False) == 1
    assert place.requests.read(id_) is None
    assert place.requests.read(place.ask()).state == "waiting"


def test_a_request_without_an_answer_goes_with_its_delivery(place):
    """Purging the inbox takes along a request that nobody answered: it can be asked anew."""
    inbox = InboxOperations(place.engine, clock=lambda: place.now)
    id_ = place.ask()
    [delivery] = place.lease()
    place.inbox.settle([Settlement(delivery, "done")])
    place.turn(1)
    assert inbox.purge(settled_before_at=place.now, dry_run=False) == 1
    assert place.requests.read(id_) is None
    assert place.requests.read(place.ask()).state == "waiting"


def test_cancelling(place):
    """A request that somebody shares is only cancelled by whoever insists; an ended one never."""
    id_ = place.ask()
    place.requests.share(id_)
    [delivery] = place.lease()
    assert not place.requests.cancel(id_)
    assert place.requests.cancelled_among([delivery.id]) == set()
    assert place.requests.cancel(id_, even_if_shared=True)
    assert place.requests.cancelled_among([delivery.id]) == {delivery.id}
    place.settle(delivery, Reply.problem(409, "cancelled"), "cancelled")
    assert place.requests.cancelled_among([delivery.id]) == set()
    assert not place.requests.cancel(id_, even_if_shared=True)


def test_hanging_up_before_the_end_sends_the_result_back(place):
    """The result becomes a delivery of the callbacks in the transaction that stores it."""
    id_ = place.ask(callback=TARGET)
    assert not place.requests.hang_up(id_, was_told=True)
    assert place.lease(CALLBACKS) == []
    [delivery] = place.lease()
    place.settle(delivery, Reply.json(1))
    assert place.inbox.has_results_to_send
    [callback] = place.lease(CALLBACKS)
    assert json.loads(callback.body) == {"request": id_}  # the address may hold a token
    assert place.requests.read(id_).callback == TARGET


def test_hanging_up_after_the_end(place):
    """Who can still be told gets the answer and no callback; who has left is called back."""
    told, left = place.ask("a", callback=TARGET), place.ask("b", callback=TARGET)
    for delivery in place.lease():
        place.settle(delivery, Reply.json(1))
    assert place.requests.hang_up(told, was_told=True)
    assert place.lease(CALLBACKS) == []
    assert place.requests.hang_up(left, was_told=False)
    [callback] = place.lease(CALLBACKS)
    assert json.loads(callback.body)["request"] == left


def test_answered_in_time_there_is_no_callback(place):
    """An address that was given and not needed is not called."""
    place.ask(callback=TARGET)
    [delivery] = place.lease()
    place.settle(delivery, Reply.json(1))
    assert place.lease(CALLBACKS) == []
    assert not place.inbox.has_results_to_send


def test_without_an_address_hanging_up_changes_nothing(place):
    """Only whether it has ended is told."""
    id_ = place.ask()
    assert not place.requests.hang_up(id_, was_told=True)
    [delivery] = place.lease()
    place.settle(delivery, Reply.json(1))
    assert place.requests.hang_up(id_, was_told=True)
    assert not place.requests.hang_up("unknown", was_told=True)
