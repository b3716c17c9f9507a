"""The accept path: read, verify, store, and only then acknowledge."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime

import orjson
from starlette.types import Receive, Scope, Send

from blocks.errors import BadPayloadError, IntegrationError, SignatureInvalidError, TransientError
from deployments.services.gateway import responses
from deployments.services.gateway.access_log import AccessLog
from deployments.services.gateway.bounded_http import HEAD_TOO_LARGE
from deployments.services.gateway.endpoints import Endpoint
from deployments.services.gateway.forwarding import Forwarding, forwarded_for
from deployments.services.gateway.metrics import Metrics
from deployments.services.gateway.notifier import Notifier
from deployments.services.gateway.request_reply import Arrival, RequestReply
from deployments.services.gateway.responses import HttpResponse
from deployments.services.gateway.shared_timeout import SharedTimeout
from tasks.core.intake.inbox.new_delivery import NewDelivery, StoredDelivery
from tasks.core.intake.inbox.writer import InboxWriter
from tasks.core.intake.request_reply.preferences import read_preference, request_digest
from tasks.core.intake.webhooks.reading import digest
from tasks.core.intake.webhooks.request import ReceivedEvent, VerifiedRequest, WebhookRequest

_LOG = logging.getLogger(__name__)
_LENGTH_DIGITS = 18  # more make no difference, and Python refuses to read thousands
_CERTIFICATES_AT_ONCE = 16

Confirm = Callable[[str], Awaitable[bool]]
"""GETs a URL that confirms a subscription; says whether that worked."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds memory and time.

    Attributes:
        max_at_once: More requests than this at once are sent away.
        body_timeout_s: How long a body may take to arrive.
    """

    max_at_once: int = 1000
    body_timeout_s: float = 30.0


class _BodyTooLargeError(Exception):
    pass


class _BodyTooSlowError(Exception):
    pass


class _CallerLeftError(Exception):
    pass


@dataclass(slots=True)
class _Exchange:
    """One request on its way, and what is told of it afterwards."""

    endpoint: Endpoint
    scope: Scope
    pairs: list[tuple[str, str]]
    headers: dict[str, str]
    received_at: datetime
    outcome: str = "failed"
    reason: str | None = None
    body_bytes: int | None = None
    stored: list[StoredDelivery] = field(default_factory=list)


class Receiver:
    """Serves the declared endpoints.

    Args:
        writer: Where deliveries are stored.
        notifier: Rung after each commit.
        forwarding: Who is believed about addresses and URLs.
        metrics: Where requests are counted.
        access_log: Where they are told.
        confirm: Confirms subscriptions of senders that want that.
        limits: What bounds memory and time.
        renewed: The endpoint with the secrets that are stored now; the same one if none changed.
        request_reply: Has the requests answered whose callers wait; None if no endpoint has such.

    Attributes:
        store_failed_at: When storing last failed, on the monotonic clock; None if it never did.
    """

    def __init__(
        self,
        *,
        writer: InboxWriter,
        notifier: Notifier,
        forwarding: Forwarding,
        metrics: Metrics,
        access_log: AccessLog,
        confirm: Confirm,
        limits: Limits,
        renewed: Callable[[Endpoint], Awaitable[Endpoint]],
        request_reply: RequestReply | None = None,
    ) -> None:
        self._writer = writer
        self._notifier = notifier
        self._forwarding = forwarding
        self._metrics = metrics
        self._access_log = access_log
        self._confirm = confirm
        self._limits = limits
        self._renewed = renewed
        self._request_reply = request_reply
        self._shared_timeout = SharedTimeout(limits.body_timeout_s)
        # not the threads that everything else needs: a stranger can have a certificate wait here
        self._verifying = ThreadPoolExecutor(_CERTIFICATES_AT_ONCE, "verify")
        self._at_once = 0
        self.store_failed_at: float | None = None

    def close(self) -> None:
        """Give the threads back; those that wait for a certificate are left to their time-out."""
        self._verifying.shutdown(wait=False, cancel_futures=True)

    async def serve(self, endpoint: Endpoint, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; whatever is wrong with it, the answer says so and is no 500."""
        started = time.perf_counter()
        pairs = [
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]
        ]
        headers = dict(reversed(pairs))  # of repeated headers the first counts
        if len(headers) < len(pairs):
            headers |= forwarded_for(pairs)
        exchange = _Exchange(endpoint, scope, pairs, headers, datetime.now(UTC))
        self._at_once += 1
        try:
            reply = await self._reply(exchange, receive)
            if reply is not None:
                await reply.send(send)
        except asyncio.CancelledError:
            _refused(exchange, "not stored", "cut off by the gateway's stop", None)
            self._tell(exchange, None, time.perf_counter() - started)
            raise
        finally:
            self._at_once -= 1
        self._tell(exchange, reply, time.perf_counter() - started)

    async def _reply(self, exchange: _Exchange, receive: Receive) -> HttpResponse | None:
        """The answer; None if nobody waits for it any more."""
        try:
            return self._refusal(exchange) or await self._accept(exchange, receive)
        except SignatureInvalidError as exc:
            return _refused(exchange, "unauthentic", exc.message, responses.UNAUTHENTIC)
        except BadPayloadError as exc:
            return _refused(exchange, "malformed", exc.message, responses.MALFORMED)
        except _BodyTooLargeError:
            return _refused(exchange, "too large", None, responses.TOO_LARGE)
        except _BodyTooSlowError:
            return _refused(exchange, "timed out", None, responses.TIMED_OUT)
        except _CallerLeftError:
            return _refused(exchange, "caller left", None, None)
        except TransientError as exc:
            return _refused(
                exchange, "not stored", str(exc), responses.not_stored(exc.retry_after_s)
            )
        except Exception as exc:  # noqa: BLE001 - ours to mend; the sender shall come back then
            _log_failure(exchange.endpoint, exc)
            return _refused(exchange, "failed", None, responses.not_stored())

    def _refusal(self, exchange: _Exchange) -> HttpResponse | None:
        """What can be refused before the body is read."""
        endpoint, scope = exchange.endpoint, exchange.scope
        if scope["method"] not in endpoint.methods:
            reply = responses.wrong_method(sorted(endpoint.methods))
            return _refused(exchange, "wrong method", None, reply)
        if endpoint.allowed_ips and not self._forwarding.is_allowed(
            scope, exchange.headers, endpoint.allowed_ips
        ):
            return _refused(exchange, "forbidden", None, responses.FORBIDDEN)
        if HEAD_TOO_LARGE in scope.get("extensions", ()):
            return _refused(exchange, "too large", "its headers", responses.HEAD_TOO_LARGE)
        if _announced_bytes(exchange.headers) > endpoint.max_body_bytes:
            return _refused(exchange, "too large", None, responses.TOO_LARGE)
        if self._at_once > self._limits.max_at_once:
            return _refused(exchange, "overloaded", None, responses.OVERLOADED)
        return None

    async def _accept(self, exchange: _Exchange, receive: Receive) -> HttpResponse | None:
        endpoint = exchange.endpoint
        body = await self._read_body(receive, endpoint.max_body_bytes)
        exchange.body_bytes = len(body)
        request = WebhookRequest(
            method=exchange.scope["method"],
            url=self._forwarding.url(exchange.scope, exchange.headers, endpoint.public_url),
            headers=exchange.headers,
            body=body,
            now=exchange.received_at,
        )
        try:
            verified = await self._verified(endpoint, request)
        except SignatureInvalidError:
            if not endpoint.has_stored_secrets:
                raise
            renewed = await self._renewed(endpoint)
            if renewed is endpoint:
                raise
            endpoint = exchange.endpoint = renewed
            verified = await self._verified(endpoint, request)
        if verified.handshake is not None:
            return await self._shake_hands(exchange, verified)
        if endpoint.request_reply is not None:
            return await self._reply_to_caller(exchange, verified, receive)
        try:
            events = verified.read_events()
        except BadPayloadError as exc:
            await self._dead_letter(exchange, request, verified, exc)
            raise
        headers = _kept_headers(exchange)
        deliveries = [
            _delivery(
                exchange,
                verified,
                event,
                headers,
                ignore_reason=_ignore_reason(endpoint, event),
            )
            for event in events
            if not event.is_notice
        ]
        await self._store(exchange, deliveries)
        wanted = [
            stored
            for stored, delivery in zip(exchange.stored, deliveries, strict=True)
            if delivery.status != "ignored"
        ]
        if not wanted:
            exchange.outcome = "notice" if any(event.is_notice for event in events) else "ignored"
            exchange.reason = ", ".join(sorted({event.event_type for event in events})) or None
            return _thanks(endpoint, verified, exchange, otherwise=responses.OK)
        is_new = any(stored.is_new for stored in wanted)
        exchange.outcome = "accepted" if is_new else "duplicate"
        return _thanks(endpoint, verified, exchange, otherwise=responses.ACCEPTED)

    async def _reply_to_caller(
        self, exchange: _Exchange, verified: VerifiedRequest, receive: Receive
    ) -> HttpResponse | None:
        assert self._request_reply is not None  # noqa: S101 - given with synchronous endpoints

        async def store(delivery: NewDelivery) -> StoredDelivery:
            await self._store(exchange, [delivery])
            return exchange.stored[0]

        self._at_once -= 1  # those who wait are counted, and limited, by themselves
        try:
            handled = await self._request_reply.handle(
                _arrival(exchange, verified, self._forwarding),
                receive,
                store=store,
                notify=self._notifier.notify,
            )
        finally:
            self._at_once += 1
        exchange.outcome, exchange.reason = handled.outcome, handled.reason
        return handled.response

    async def _verified(self, endpoint: Endpoint, request: WebhookRequest) -> VerifiedRequest:
        verifier = endpoint.verifier
        if verifier.scheme.may_block:
            return await asyncio.get_running_loop().run_in_executor(
                self._verifying, verifier.verify, request
            )
        return verifier.verify(request)

    async def _read_body(self, receive: Receive, max_bytes: int) -> bytes:
        try:
            return await self._shared_timeout.wait_for(_read_all(receive, max_bytes))
        except TimeoutError as exc:
            raise _BodyTooSlowError from exc

    async def _shake_hands(self, exchange: _Exchange, verified: VerifiedRequest) -> HttpResponse:
        assert verified.handshake is not None  # noqa: S101 - the caller looked
        url = verified.handshake.confirm_url
        if url is not None and not await self._confirm(url):
            exchange.outcome = "not confirmed"
            return responses.not_stored()
        exchange.outcome = "handshake"
        return responses.acknowledge(verified.handshake.acknowledgement)

    async def _dead_letter(
        self,
        exchange: _Exchange,
        request: WebhookRequest,
        verified: VerifiedRequest,
        error: BadPayloadError,
    ) -> None:
        # It came from the right sender, so it is kept: mended by hand, it can be replayed.
        event = ReceivedEvent("", digest(request))
        headers = _kept_headers(exchange)
        await self._store(
            exchange,
            [_delivery(exchange, verified, event, headers, dead_letter_reason=error.message)],
        )

    async def _store(self, exchange: _Exchange, deliveries: list[NewDelivery]) -> None:
        if not deliveries:
            return
        try:
            exchange.stored = await self._writer.store(deliveries)
        except BadPayloadError:
            raise  # the sender's fault, so no reason to send nobody here any more
        except IntegrationError:
            self.store_failed_at = time.monotonic()
            raise
        if any(
            stored.is_new and delivery.status in ("received", "queued")
            for stored, delivery in zip(exchange.stored, deliveries, strict=True)
        ):
            self._notifier.notify(exchange.endpoint.integration)

    def _tell(self, exchange: _Exchange, reply: HttpResponse | None, seconds: float) -> None:
        name = exchange.endpoint.name
        self._metrics.count_request(name, exchange.outcome, seconds)
        for stored in exchange.stored:
            self._metrics.count_delivery(name, is_new=stored.is_new)
        self._access_log.write(
            exchange.received_at,
            endpoint=name,
            method=exchange.scope["method"],
            status=reply.status if reply is not None else None,
            outcome=exchange.outcome,
            reason=exchange.reason,
            caller=self._forwarding.caller_name(exchange.scope, exchange.headers),
            body_bytes=exchange.body_bytes,
            deliveries=[stored.id for stored in exchange.stored] or None,
            ms=round(seconds * 1000, 2),
        )


def _refused(
    exchange: _Exchange, outcome: str, reason: str | None, reply: HttpResponse | None
) -> HttpResponse | None:
    exchange.outcome = outcome
    exchange.reason = reason
    return reply


def _log_failure(endpoint: Endpoint, exc: Exception) -> None:
    # The texts of foreign exceptions may quote what was to be stored; the place suffices.
    said = str(exc) if isinstance(exc, IntegrationError) else type(exc).__name__
    place = "".join(traceback.format_tb(exc.__traceback__))
    _LOG.error("endpoint %s failed and answers 503: %s\n%s", endpoint.name, said, place)


def _ignore_reason(endpoint: Endpoint, event: ReceivedEvent) -> str | None:
    if endpoint.events is None or event.event_type in endpoint.events:
        return None
    return f"the endpoint takes no {event.event_type or 'untyped'} events"


def _kept_headers(exchange: _Exchange) -> bytes:
    """As stored; made once a request, since the events of a batch share them."""
    secret = exchange.endpoint.verifier.credential_headers
    return orjson.dumps([pair for pair in exchange.pairs if pair[0] not in secret])


def _delivery(
    exchange: _Exchange,
    verified: VerifiedRequest,
    event: ReceivedEvent,
    headers: bytes,
    *,
    dead_letter_reason: str | None = None,
    ignore_reason: str | None = None,
) -> NewDelivery:
    endpoint = exchange.endpoint
    return NewDelivery(
        integration=endpoint.integration,
        endpoint=endpoint.name,
        event=event.event_type,
        dedup_key=event.dedup_key,
        ordering_key=event.ordering_key,
        headers=headers,
        body=verified.body,
        payload=event.payload,
        content_type=exchange.headers.get("content-type", ""),
        received_at=exchange.received_at,
        dead_letter_reason=dead_letter_reason,
        ignore_reason=ignore_reason,
    )


def _arrival(exchange: _Exchange, verified: VerifiedRequest, forwarding: Forwarding) -> Arrival:
    endpoint = exchange.endpoint
    assert endpoint.request_reply is not None  # noqa: S101 - the caller looked
    events = verified.read_events()
    if len(events) != 1:
        raise BadPayloadError(
            "one request must hold one event", system=endpoint.name, operation="read events"
        )
    delivery = _delivery(exchange, verified, events[0], _kept_headers(exchange))
    return Arrival(
        endpoint=endpoint,
        declared=endpoint.request_reply,
        delivery=delivery,
        headers=exchange.headers,
        preference=read_preference(value for name, value in exchange.pairs if name == "prefer"),
        digest=request_digest(
            exchange.scope["method"],
            exchange.scope["query_string"],
            delivery.content_type,
            delivery.body,
        ),
        repeated_by=delivery.dedup_key
        if verified.signed_id is not None or endpoint.knows_repetitions
        else None,
        address=forwarding.caller_name(exchange.scope, exchange.headers) or "",
        origin=forwarding.origin,
    )


def _thanks(
    endpoint: Endpoint, verified: VerifiedRequest, exchange: _Exchange, *, otherwise: HttpResponse
) -> HttpResponse:
    match endpoint.response:
        case "ok":
            return responses.OK
        case "accepted":
            return responses.ACCEPTED
        case "no-content":
            return responses.NO_CONTENT
        case "receipt":
            return responses.receipt([stored.id for stored in exchange.stored])
    return (
        responses.acknowledge(verified.acknowledgement) if verified.acknowledgement else otherwise
    )


def _announced_bytes(headers: Mapping[str, str]) -> int:
    length = headers.get("content-length", "")
    return int(length[:_LENGTH_DIGITS]) if length.isdecimal() else 0


async def _read_all(receive: Receive, max_bytes: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _CallerLeftError
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > max_bytes:
            raise _BodyTooLargeError
        if not message.get("more_body", False):
            return b"".join((*chunks, chunk)) if chunks else chunk
        chunks.append(chunk)
