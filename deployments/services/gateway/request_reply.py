"""Callers that wait: each is stored like any delivery, and gets an answer or a place to look.

    answer in time ──► status, headers and body that the flow chose
    deadline, or respond-async ──► 202 with Location; the run goes on, the result goes to the
                                   callback address if there is one
    too many wait ──► 503 with Retry-After, and nothing is stored

The same idempotency key finds the same request: its answer, or the wait for it.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import orjson
from sqlalchemy import Engine
from starlette.types import Receive

from blocks.errors import BadPayloadError, IntegrationError, UnreachableError
from deployments.services.gateway import responses
from deployments.services.gateway.endpoints import Endpoint
from deployments.services.gateway.responses import HttpResponse
from deployments.services.gateway.waiters import Waiters, WaitingRoom
from tasks.core.intake.inbox.new_delivery import NewDelivery, StoredDelivery, delivery_id
from tasks.core.intake.inbox.reply import Reply
from tasks.core.intake.inbox.reply_tables import AWAITED_REQUESTS
from tasks.core.intake.request_reply.callback_address import Resolve, check_address
from tasks.core.intake.request_reply.preferences import Preference, read_idempotency_key
from tasks.core.intake.request_reply.requests import (
    PURGED_AT_A_TIME,
    CallbackTarget,
    Requests,
    new_request_id,
    request_row,
)
from tasks.core.registry.declarations import REQUESTS_PATH
from tasks.core.registry.request_reply import CallbackDeclaration, RequestReplyDeclaration

_LOG = logging.getLogger(__name__)
_NOTIFY_AGAIN_S = 5.0
_LOOK_AGAIN_S = 1
_BUSY_RETRY_AFTER_S = 1
_NAME_SERVER_TIMEOUT_S = 3.0
_LOOKUPS_AT_ONCE = 16
_PURGE_EVERY_S = 60.0
_CREDENTIALS = {"basic": "authorization", "bearer": "authorization"}

Store = Callable[[NewDelivery], Awaitable[StoredDelivery]]
"""Stores a delivery and notifies Prefect of it."""

Notify = Callable[[str], None]
"""Rings for an integration unless a run is at work."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One verified request whose caller waits.

    Attributes:
        endpoint: Where it came in.
        declared: How its callers wait.
        delivery: As it would be stored if nobody waited.
        headers: Names in lower case.
        preference: How long the caller wants to wait.
        digest: Of what is asked.
        repeated_by: The sender's own id of this request, if it is signed or was declared.
        address: Where the caller is.
        origin: What stands before paths as the caller sees them; may be empty.
    """

    endpoint: Endpoint
    declared: RequestReplyDeclaration
    delivery: NewDelivery
    headers: dict[str, str]
    preference: Preference
    digest: str
    repeated_by: str | None
    address: str
    origin: str

    @property
    def credential(self) -> str | None:
        """A digest of what the caller showed; None where requests are signed or anonymous."""
        verifier = self.endpoint.verifier
        if verifier.name == "api-key":
            shown = [self.headers.get(name, "") for name in sorted(verifier.credential_headers)]
        elif verifier.name in _CREDENTIALS:
            shown = [self.headers.get(_CREDENTIALS[verifier.name], "")]
        else:
            return None
        text = "\n".join(shown).encode("utf-8", "surrogatepass")
        return hashlib.sha256(text).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Handled:
    """What came of an arrival.

    Attributes:
        response: None if the caller has left.
        outcome: As the access log names it.
        reason: More of that.
    """

    response: HttpResponse | None
    outcome: str
    reason: str | None = None


class RequestReply:
    """Has requests answered by flows.

    Args:
        engine: The state database.
        callback_networks: Networks that every callback address may lead to, CIDR.
        poll_s: How often answers are looked for while nothing notifies.
        resolve: In place of the machine's resolver, for tests.

    Attributes:
        closing: Set when nobody is to wait any more.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        callback_networks: Sequence[str] = (),
        poll_s: float = 0.02,
        resolve: Resolve | None = None,
    ) -> None:
        self._callback_networks = tuple(callback_networks)
        self._resolve = resolve
        # A lookup goes on in its thread when nobody waits for it any more; so these threads are
        # not those that everything else here needs.
        self._lookups = ThreadPoolExecutor(_LOOKUPS_AT_ONCE, "look up callback")
        self.requests = Requests(engine)
        self.waiters = Waiters(engine, poll_s=poll_s)
        self._room = WaitingRoom()
        self._lookup_room = WaitingRoom()
        self._notified_at: dict[str, float] = {}
        self.closing = asyncio.Event()
        self._purging: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to look for answers."""
        await self.waiters.start()
        self._purging = asyncio.create_task(self._purge_now_and_then(), name="purge results")

    async def close(self) -> None:
        """Stop."""
        self.stop_waiting()
        if self._purging is not None:
            self._purging.cancel()
            await asyncio.gather(self._purging, return_exceptions=True)
        await self.waiters.close()
        self._lookups.shutdown(wait=False, cancel_futures=True)

    def stop_waiting(self) -> None:
        """Tell everybody who waits where to look later, because this process ends."""
        self.closing.set()

    async def handle(
        self, arrival: Arrival, receive: Receive, *, store: Store, notify: Notify
    ) -> Handled:
        """Store the request, wait for its answer as long as the caller wants and may.

        Raises:
            IntegrationError: Nothing was stored.
        """
        waits_s = arrival.preference.waits_s(arrival.declared.deadline_s)
        try:
            if waits_s == 0:
                return await self._take(arrival, waits_s, receive, store, notify)
            with _place(self._room, arrival):
                return await self._take(arrival, waits_s, receive, store, notify)
        except _CrowdedError:
            retry = ("Retry-After", str(_BUSY_RETRY_AFTER_S))
            return _refused(
                503, "too many requests wait already; try again", "too many wait", retry
            )

    async def _take(
        self, arrival: Arrival, waits_s: float, receive: Receive, store: Store, notify: Notify
    ) -> Handled:
        try:
            dedup_key = _dedup_key(arrival)
            target = await self._callback_target(arrival)
        except ValueError as exc:
            return _refused(400, str(exc), "malformed")
        except BadPayloadError as exc:
            return _refused(422, exc.message, "callback refused")
        except UnreachableError as exc:
            return _refused(
                422, f"the callback address is refused: {exc.message}", "callback refused"
            )
        return await self._store(arrival, dedup_key, target, waits_s, receive, store, notify)

    async def _callback_target(self, arrival: Arrival) -> CallbackTarget | None:
        declared = arrival.declared.callback
        if declared is None:
            return None
        url = _callback_url(arrival, declared)
        if url is None:
            return None
        target = CallbackTarget(
            url=url,
            signed_by=declared.signed_by,
            location="",
            allowed_networks=(*map(str, declared.allowed_networks), *self._callback_networks),
        )
        if url != declared.url:  # the operator's own is looked at when the result is sent
            with _place(self._lookup_room, arrival):
                await self._look_at(target)
        return target

    async def _look_at(self, target: CallbackTarget) -> None:
        check = partial(
            check_address,
            target.url,
            allowed_networks=target.allowed_networks,
            resolve=self._resolve,
        )
        checking = asyncio.get_running_loop().run_in_executor(self._lookups, check)
        try:
            async with asyncio.timeout(_NAME_SERVER_TIMEOUT_S):
                await checking
        except TimeoutError as exc:
            raise UnreachableError(
                "its name was not resolved in time", system="callback", operation="check address"
            ) from exc

    async def _store(
        self,
        arrival: Arrival,
        dedup_key: str | None,
        target: CallbackTarget | None,
        waits_s: float,
        receive: Receive,
        store: Store,
        notify: Notify,
    ) -> Handled:
        request_id = new_request_id()
        if target is not None:
            target = replace(target, location=_location(arrival, request_id))
        key = dedup_key or f"request:{request_id}"
        row = request_row(
            id=request_id,
            delivery_id=delivery_id(arrival.endpoint.name, key),
            endpoint=arrival.endpoint.name,
            digest=arrival.digest,
            keep_s=arrival.declared.keep_results_s,
            received_at=arrival.delivery.received_at,
            callback=target,
            callback_wanted=waits_s == 0,
        )
        delivery = replace(arrival.delivery, dedup_key=key, beside=(AWAITED_REQUESTS, row))
        wait = _Wait(arrival, request_id, waits_s, has_callback=target is not None)
        # first wait, then store: so no answer is missed
        with self.waiters.waiting_for(request_id) as ended:
            stored = await store(delivery)
            if stored.is_new:
                return await self._wait(wait, ended, receive, notify)
        return await self._join(wait, stored.id, receive, notify)

    async def _join(self, wait: _Wait, known_as: str, receive: Receive, notify: Notify) -> Handled:
        """The same request came before: give its answer, or wait for it as well."""
        known = await asyncio.to_thread(self.requests.of_delivery, known_as)
        if known is not None and known.digest != wait.arrival.digest:
            return _refused(
                422,
                "this Idempotency-Key was used for another request; nothing was done",
                "reused key",
            )
        if known is None or known.state == "expired":
            return _refused(
                409,
                "this request was answered before, and its result is not kept any more",
                "expired",
            )
        wait = replace(wait, request_id=known.id, is_repetition=True)
        with self.waiters.waiting_for(known.id) as ended:
            if known.reply is None:
                await asyncio.to_thread(self.requests.share, known.id)
                known = await asyncio.to_thread(self.requests.read, known.id) or known
            if known.reply is not None:
                return wait.replied(known.reply)
            return await self._wait(wait, ended, receive, notify)

    async def _wait(
        self, wait: _Wait, ended: asyncio.Future[None], receive: Receive, notify: Notify
    ) -> Handled:
        """Wait until the request ends, the caller's time is over, or either of us leaves."""
        loop = asyncio.get_running_loop()
        until = loop.time() + wait.waits_s
        left = asyncio.ensure_future(_has_left(receive))
        closing = asyncio.ensure_future(self.closing.wait())
        try:
            while (timeout_s := until - loop.time()) > 0:
                ends: set[asyncio.Future[Any]] = {ended, left, closing}
                await asyncio.wait(
                    ends,
                    timeout=min(timeout_s, _NOTIFY_AGAIN_S),
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if ended.done():
                    reply = await self._read(wait.request_id)
                    return wait.replied(reply) if reply is not None else wait.later()
                if left.done():
                    return await self._after_leaving(wait)
                if closing.done():
                    break
                self._notify_again(wait.arrival.endpoint.integration, notify)
            return await self._hang_up(wait)
        except IntegrationError as exc:
            # what was asked is stored and will be done; only the answer cannot be had here
            _LOG.warning("a caller is told to look later: %s", exc)
            return wait.later()
        finally:
            left.cancel()
            closing.cancel()

    def _notify_again(self, integration: str, notify: Notify) -> None:
        """The run that took the request may have died: once for all who wait."""
        now = asyncio.get_running_loop().time()
        if now - self._notified_at.get(integration, float("-inf")) >= _NOTIFY_AGAIN_S:
            self._notified_at[integration] = now
            notify(integration)

    async def _hang_up(self, wait: _Wait) -> Handled:
        # a request that is new, and whose caller never waited, was stored as one to be called back
        if wait.has_callback and (wait.waits_s > 0 or wait.is_repetition):
            has_ended = await asyncio.to_thread(
                self.requests.hang_up, wait.request_id, was_told=True
            )
            if has_ended and (reply := await self._read(wait.request_id)) is not None:
                return wait.replied(reply)
        return wait.later()

    async def _after_leaving(self, wait: _Wait) -> Handled:
        if wait.arrival.declared.cancel_when_caller_leaves:
            if await asyncio.to_thread(self.requests.cancel, wait.request_id):
                return Handled(None, "caller left", "the request is cancelled")
        elif wait.has_callback:
            await asyncio.to_thread(self.requests.hang_up, wait.request_id, was_told=False)
        return Handled(None, "caller left", "the run goes on")

    async def _read(self, request_id: str) -> Reply | None:
        view = await asyncio.to_thread(self.requests.read, request_id)
        return None if view is None else view.reply

    async def _purge_now_and_then(self) -> None:
        while True:
            try:
                while await asyncio.to_thread(self.requests.purge) >= PURGED_AT_A_TIME:
                    pass
            except IntegrationError as exc:
                _LOG.warning("old results stay for now: %s", exc)
            await asyncio.sleep(_PURGE_EVERY_S)


@dataclass(frozen=True, slots=True)
class _Wait:
    """One caller's wait for one request."""

    arrival: Arrival
    request_id: str
    waits_s: float
    has_callback: bool
    is_repetition: bool = False

    def replied(self, reply: Reply) -> Handled:
        headers = list(reply.headers)
        preference = replace(self.arrival.preference, is_async=False)
        if applied := preference.applied(self.arrival.declared.deadline_s):
            headers.append(("Preference-Applied", applied))
        if self.is_repetition:
            headers.append(("Idempotency-Replayed", "true"))
        response = responses.respond(reply.status, reply.body, reply.content_type, *headers)
        return Handled(response, "repeated" if self.is_repetition else "answered")

    def later(self) -> Handled:
        location = _location(self.arrival, self.request_id)
        headers = [
            ("Location", location),
            ("Retry-After", str(_LOOK_AGAIN_S)),
            ("Cache-Control", "no-store"),
        ]
        if applied := self.arrival.preference.applied(self.arrival.declared.deadline_s):
            headers.append(("Preference-Applied", applied))
        document = {"request": self.request_id, "state": "under way", "location": location}
        response = responses.respond(202, orjson.dumps(document), "application/json", *headers)
        return Handled(response, "answered later")


def reply_response(reply: Reply, *headers: tuple[str, str]) -> HttpResponse:
    """An answer as the gateway sends it."""
    return responses.respond(reply.status, reply.body, reply.content_type, *reply.headers, *headers)


def _dedup_key(arrival: Arrival) -> str | None:
    """What repetitions of the request share; None if it is one of its own.

    An id that is signed, or that the operator declared, cannot be forged by who captured a
    request; so the header counts only without.
    """
    if arrival.repeated_by is not None:
        return arrival.repeated_by
    key = read_idempotency_key(arrival.headers.get("idempotency-key"))
    if key is None:
        return None
    return f"key:{arrival.credential or ''}:{key}"


class _CrowdedError(Exception):
    """There is no place left."""


@contextmanager
def _place(room: WaitingRoom, arrival: Arrival) -> Iterator[None]:
    leave = room.enter(
        arrival.endpoint.name,
        arrival.credential or arrival.address,
        max_waiting=arrival.declared.max_waiting,
        max_per_caller=arrival.declared.max_waiting_per_caller,
    )
    if leave is None:
        raise _CrowdedError
    try:
        yield
    finally:
        leave()


def _callback_url(arrival: Arrival, declared: CallbackDeclaration) -> str | None:
    if declared.header is not None and (url := arrival.headers.get(declared.header)):
        return url
    if declared.field is not None and (url := _field(arrival.delivery, declared.field)):
        return url
    return declared.url


def _field(delivery: NewDelivery, path: str) -> str | None:
    try:
        found = orjson.loads(delivery.payload or delivery.body)
    except orjson.JSONDecodeError:
        return None
    for name in path.split("."):
        if not isinstance(found, dict):
            return None
        found = found.get(name)
    return found if isinstance(found, str) else None


async def _has_left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _location(arrival: Arrival, request_id: str) -> str:
    return f"{arrival.origin}{REQUESTS_PATH}{request_id}"


def _refused(status: int, detail: str, outcome: str, *headers: tuple[str, str]) -> Handled:
    reply = Reply.problem(status, detail, headers=headers)
    return Handled(reply_response(reply), outcome, detail if status != 503 else None)
