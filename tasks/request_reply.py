"""Replies to callers that wait: each request is a task run that ends with a reply."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, Self, TypeAlias

from prefect import State, get_run_logger, runtime
from prefect.artifacts import acreate_markdown_artifact
from sqlalchemy import Engine

from blocks.errors import BadPayloadError, IntegrationError
from tasks.core.intake.inbox.consumer import AdvancedConsumerSettings, ConsumerSettings
from tasks.core.intake.inbox.delivery import Delivery, Outcome, cancelled, done, ignored
from tasks.core.intake.inbox.reply import Reply, failure_reply
from tasks.core.intake.inbox.request_ending import CALLBACK_EVENT, CALLBACKS
from tasks.core.intake.inbox.settlement import Settlement
from tasks.core.intake.request_reply.callbacks import callback_body, send_callback
from tasks.core.intake.request_reply.requests import Progress, Requests
from tasks.core.state.database import open_database
from tasks.core.threads import DaemonThreadPoolExecutor, in_thread, in_thread_of, is_cancelled
from tasks.deliveries import handle_deliveries

__all__ = [
    "CALLBACKS",
    "CALLBACK_EVENT",
    "REPLYING",
    "Reply",
    "Requests",
    "Respond",
    "callback_body",
    "reply_to_requests",
    "report_progress",
    "send_callback",
]


Respond: TypeAlias = Callable[[Delivery], "Awaitable[Any] | Any"]
_ATTEND_EVERY_S = 0.25
_POLL_S = 0.02
_SHOWN_CHARS = 50_000
_CANCELLED = "whoever asked does not want the answer any more"

# Somebody waits: few and quick retries, and a run that stays for the next.
REPLYING = ConsumerSettings(
    idle_timeout_s=60.0,
    max_attempts=3,
    advanced=AdvancedConsumerSettings(
        retry_delays_s=[0.5], first_retry_s=2.0, max_retry_s=10.0, lease_s=10.0
    ),
)

_tell: ContextVar[Callable[[Progress], None] | None] = ContextVar("tell progress", default=None)


async def reply_to_requests(
    integration: str,
    respond: Respond,
    *,
    settings: ConsumerSettings = REPLYING,
    payload: Any = None,
    event: str | None = None,
) -> State[Any]:
    """Reply to the waiting requests of an integration, each in its own task run.

    It makes no difference here whether a caller still waits: the gateway sends it the reply,
    stores it, or has it sent to the callback address.

    Args:
        integration: The integration's name.
        respond: Called with one request, many at once; a plain function runs in a thread. What
            it returns is answered: an `Reply` as it is, anything else as JSON. A payload that
            breaks its contract (`BadPayloadError` of `Delivery.parse`) is answered 422; other
            errors are retried or dead-lettered as in `handle_deliveries`, and answered when nothing
            more is tried, by a problem document with the run's id and nothing else of ours.
        settings: How the run goes about it.
        payload: A sample to answer in place of what is waiting; an artifact shows the answer.
        event: The sample's event; None for its field `type`.

    Returns:
        The state for the flow to return.
    """
    engine = await in_thread(open_database)
    threads = DaemonThreadPoolExecutor(settings.concurrency, "answer-request")
    try:
        async with _Attendance(integration, respond, threads, engine) as attendance:
            return await handle_deliveries(
                integration,
                attendance.handle,
                settings=settings,
                payload=payload,
                event=event,
                conclude=attendance.conclude,
                poll_s=_POLL_S,
            )
    finally:
        threads.shutdown(wait=False)


def report_progress(message: str, percent: float | None = None) -> None:
    """Report the current request's progress to its caller; return at once.

    Args:
        message: What the caller reads.
        percent: 0 to 100.
    """
    tell = _tell.get()
    if tell is not None:
        tell(Progress(message, percent))


class _Attendance:
    """Handles requests, reports their progress, and stops cancelled ones."""

    def __init__(
        self, integration: str, respond: Respond, threads: DaemonThreadPoolExecutor, engine: Engine
    ) -> None:
        self._integration = integration
        self._respond = respond
        self._threads = threads
        self._engine = engine
        self._requests = Requests(engine)
        self._run_id = str(runtime.flow_run.id)
        self._under_way: dict[str, asyncio.Task[Any]] = {}
        self._unneeded: set[str] = set()
        self._progress: dict[str, Progress] = {}
        self._attending: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._attending = asyncio.create_task(self._attend(), name="attend requests")
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._attending is not None  # noqa: S101 - entered before
        self._attending.cancel()
        await asyncio.gather(self._attending, return_exceptions=True)
        await in_thread(self._engine.dispose)

    async def handle(self, delivery: Delivery) -> Outcome:
        """Handle one request for `handle_deliveries`."""
        is_sample = delivery.endpoint == "sample"
        if not is_sample:
            unneeded = await in_thread(self._requests.cancelled_among, [delivery.id])
            if unneeded:
                return cancelled(_CANCELLED)
        responding = asyncio.create_task(self._call(delivery))
        self._under_way[delivery.id] = responding
        try:
            reply = Reply.of(await responding)
        except asyncio.CancelledError:
            if delivery.id not in self._unneeded or is_cancelled():
                raise  # it is the run that ends, or the time-out
            return cancelled(_CANCELLED)
        except BadPayloadError as error:
            if (error.system, error.record) != (delivery.endpoint, delivery.id):
                raise  # something else is malformed than what the caller sent
            reply = Reply.problem(422, error.message)
            return ignored(f"answered 422: {error.message}", reply=reply)
        finally:
            self._unneeded.discard(delivery.id)
            del self._under_way[delivery.id]
        if is_sample:
            await self._show(reply)
        return done(reply.said, reply=reply)

    def conclude(self, settlement: Settlement) -> Settlement:
        """Give every final outcome a reply; a request that is retried has none yet."""
        if settlement.reply is not None or settlement.status in ("failed", "handed over"):
            return settlement
        if settlement.status == "cancelled":
            reply = Reply.problem(409, "the request was cancelled", run=self._run_id)
        else:
            reply = failure_reply(settlement.error, self._run_id)
        return replace(settlement, reply=reply)

    async def _call(self, delivery: Delivery) -> Any:
        def tell(progress: Progress) -> None:
            self._progress[delivery.id] = progress

        _tell.set(tell)
        if inspect.iscoroutinefunction(self._respond):
            return await self._respond(delivery)
        found = await in_thread_of(self._threads, self._respond, delivery)
        return await found if inspect.isawaitable(found) else found

    async def _attend(self) -> None:
        while True:
            await asyncio.sleep(_ATTEND_EVERY_S)
            if not self._under_way:
                continue
            try:
                await self._pass_progress_on()
                await self._stop_unneeded()
            except IntegrationError as exc:
                get_run_logger().warning("%s; trying again", exc)

    async def _pass_progress_on(self) -> None:
        progress, self._progress = self._progress, {}
        if progress:
            await in_thread(self._requests.tell_progress, progress)

    async def _stop_unneeded(self) -> None:
        ids = list(self._under_way)
        for delivery_id in await in_thread(self._requests.cancelled_among, ids):
            responding = self._under_way.get(delivery_id)
            if responding is not None:
                self._unneeded.add(delivery_id)
                responding.cancel()

    async def _show(self, reply: Reply) -> None:
        text = reply.body.decode(errors="replace")[:_SHOWN_CHARS]
        fenced = "\n".join(f"    {line}" for line in text.splitlines())
        await acreate_markdown_artifact(
            key=f"reply-{self._integration.replace('_', '-')}",
            markdown=f"{reply.status} {reply.content_type or ''}\n\n{fenced}",
            description="What the caller of the sample would have got.",
        )
