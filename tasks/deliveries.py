"""The path from the inbox to a flow: every delivery a task run with its own retries and outcome."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, TypeAlias, cast

from prefect import State, Task, get_run_logger, runtime
from prefect.artifacts import acreate_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import TaskRun
from prefect.events import emit_event
from prefect.states import Cancelled, Completed
from prefect.task_engine import run_task_async
from prefect.utilities.annotations import quote

from blocks.errors import IntegrationError, TransientError
from tasks.core.intake.inbox.consumer import (
    ConsumerReport,
    ConsumerSettings,
    Failure,
    InboxConsumer,
)
from tasks.core.intake.inbox.consumer_registry import ConsumerRegistry
from tasks.core.intake.inbox.delivery import (
    Delivery,
    Outcome,
    dead_letter,
    done,
    handed_to,
    ignored,
)
from tasks.core.intake.inbox.notification import EVENT_NAME, related_tags, resource_id
from tasks.core.intake.inbox.routing import Route, Scalar, all_hold, route
from tasks.core.intake.inbox.settlement import (
    Settlement,
    in_words,
    settle_crashes,
    settle_error,
    settle_outcome,
)
from tasks.core.intake.inbox.store import Inbox
from tasks.core.state.database import open_database
from tasks.core.threads import DaemonThreadPoolExecutor, in_thread, in_thread_of
from tasks.outcomes import failed

__all__ = [
    "AsTaskRun",
    "Conclude",
    "ConsumerSettings",
    "Delivery",
    "Handle",
    "Outcome",
    "Route",
    "Scalar",
    "all_hold",
    "dead_letter",
    "done",
    "handing_over_by",
    "handle_deliveries",
    "ignored",
    "notify_waiting",
    "route",
]


Handle: TypeAlias = Callable[[Delivery], "Awaitable[Outcome | None] | Outcome | None"]
AsTaskRun: TypeAlias = Callable[[Delivery], Awaitable[Settlement]]
Conclude: TypeAlias = Callable[[Settlement], Settlement]
_LONGEST_WAIT_IN_RUN_S = 10.0
_NAMED_FAILURES = 5
_TASK_NAME = "handle delivery"
_SHOWN_FAILURES = 500
_END = "Finished in state "  # of all that is logged at the end of a task run


async def handle_deliveries(
    integration: str,
    handle: Handle,
    *,
    settings: ConsumerSettings,
    payload: Any = None,
    event: str | None = None,
    conclude: Conclude | None = None,
    poll_s: float = 0.05,
) -> State[Any]:
    """Handle an integration's waiting deliveries, each as a task run of its own.

    A retry of the flow run (from the UI, or by `prefect flow-run retry`) handles what this run
    failed to handle, at once and nothing else.

    Args:
        integration: Whose deliveries.
        handle: Called with one delivery, many at once; a plain function runs in a thread. It
            returns an `Outcome`, or nothing when done, and raises errors of `blocks.errors`:
            a transient one is retried, any other dead-letters the delivery. Effects carry the
            delivery's `idempotency_key`, so that none happens twice.
        settings: How the run goes about it.
        payload: A sample to handle in place of what is waiting; the inbox is not touched.
        event: The sample's event; None for its field `type`.
        conclude: Adds to how each delivery ended, before that is stored.
        poll_s: How often the empty inbox is looked at.

    Returns:
        The state for the flow to return: failed if a delivery was, naming each.
    """
    # not the threads that the inbox needs: handlers that hang may hold all of these
    threads = DaemonThreadPoolExecutor(settings.concurrency, "handle-delivery")
    try:
        as_task_run = _as_task_runs(handle, settings, threads, conclude or (lambda each: each))
        if payload is not None:
            kind = _type_of(payload) if event is None else event
            return await _handle_sample(integration, as_task_run, payload, kind)
        report = await _consume(integration, as_task_run, settings, poll_s)
    except IntegrationError as error:
        return failed(str(error))
    finally:
        threads.shutdown(wait=False)
    if report.failures:
        await _show_failures(integration, report)
    return _ended(report)


def handing_over_by(decide: Callable[[Delivery], str | None]) -> Handle:
    """Handle deliveries by handing each to the sibling flow that it belongs to.

    Args:
        decide: Gives the integration that takes a delivery, or None if none does: then it is
            dead-lettered.
    """

    async def hand_over(delivery: Delivery) -> Outcome:
        integration = decide(delivery)
        if integration is None:
            return dead_letter("no rule says whose it is; add one, then replay")
        return handed_to(integration)

    return hand_over


async def notify_waiting(integration: str) -> None:
    """Let a run start that takes what is waiting for this integration."""
    emit_event(
        EVENT_NAME,
        resource={"prefect.resource.id": resource_id(integration)},
        related=related_tags(integration),
        payload={"integration": integration},
    )


async def _consume(
    integration: str, as_task_run: AsTaskRun, settings: ConsumerSettings, poll_s: float
) -> ConsumerReport:
    engine = await in_thread(open_database)
    inbox = Inbox(engine)
    inbox_consumer = InboxConsumer(
        inbox,
        ConsumerRegistry(engine),
        integration=integration,
        run_id=str(runtime.flow_run.id),
        handle=as_task_run,
        settings=settings,
        notify=notify_waiting,
        log=get_run_logger(),
        poll_s=poll_s,
    )
    try:
        is_retry = (runtime.flow_run.run_count or 1) > 1
        return await (inbox_consumer.retry() if is_retry else inbox_consumer.run())
    finally:
        await in_thread(inbox.close)


def _type_of(payload: Any) -> str:
    return str(payload.get("type", "")) if isinstance(payload, dict) else ""


async def _handle_sample(
    integration: str, as_task_run: AsTaskRun, payload: Any, event: str
) -> State[Any]:
    # the same id for a retry of this run, which so repeats no effect
    sample_id = f"sample-{runtime.flow_run.id}"
    delivery = Delivery.sample(payload, event=event, integration=integration, id=sample_id)
    settlement = await as_task_run(delivery)
    message = f"sample {in_words(settlement.status)}: {settlement.reason}".removesuffix(": ")
    return failed(message) if settlement.is_failure else Completed(message=message)


def _as_task_runs(
    handle: Handle,
    settings: ConsumerSettings,
    threads: DaemonThreadPoolExecutor,
    conclude: Conclude,
) -> AsTaskRun:
    settled: dict[str, Settlement] = {}

    async def handle_delivery(delivery: Delivery) -> State[Any]:
        settlement, may_help_soon = await _handle(handle, delivery, settings, threads)
        settled[delivery.id] = settlement
        if settlement.is_failure:
            return failed(settlement.reason, data=may_help_soon)
        if settlement.status == "cancelled":
            return Cancelled(message=settlement.reason)
        name = settlement.status.capitalize() if settlement.status != "done" else None
        return Completed(name=name, message=settlement.reason or None)

    handling = Task(
        fn=handle_delivery,
        name=_TASK_NAME,
        task_run_name="{delivery.event} {delivery.id}",
        retries=len(settings.advanced.retry_delays_s),
        retry_delay_seconds=settings.advanced.retry_delays_s,
        retry_condition_fn=_may_help_soon,
        cache_policy=NO_CACHE,
        persist_result=False,
    )

    async def run(delivery: Delivery) -> Settlement:
        state = await _run_task(handling, delivery)
        settlement = settled.pop(delivery.id, None)
        if settlement is None:  # Prefect itself failed before the handler was called
            reason = f"its task run ended {state.name}; see its log"
            settlement = Settlement(delivery, "dead_letter", reason)
        return conclude(settlement)

    return run


async def _run_task(handling: Task[..., Any], delivery: Delivery) -> State[Any]:
    # Quoted, so that Prefect does not search every field for results of other runs. Made here,
    # since a run that the engine makes itself tells of Pending, too: a third of all events.
    parameters = {"delivery": quote(delivery)}
    made = await handling.create_local_run(parameters=parameters)
    state = await run_task_async(
        handling, task_run=made, parameters=parameters, return_type="state"
    )
    return cast("State[Any]", state)


async def _may_help_soon(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    return state.data is True


async def _handle(
    handle: Handle,
    delivery: Delivery,
    settings: ConsumerSettings,
    threads: DaemonThreadPoolExecutor,
) -> tuple[Settlement, bool]:
    """Handle it once.

    Returns:
        How it ended, and whether trying again within this run may help.
    """
    given_up = settle_crashes(delivery, settings.retry_policy)
    if given_up is not None:
        return given_up, False
    try:
        async with asyncio.timeout(settings.handle_timeout_s):
            return settle_outcome(delivery, await _call(handle, delivery, threads)), False
    except IntegrationError as exc:
        error = exc
    except TimeoutError:
        error = TransientError(
            f"not done within {settings.handle_timeout_s:g} s",
            system=delivery.integration,
            operation="handle",
            record=delivery.id,
        )
    except Exception as bug:  # noqa: BLE001 - one delivery's bug must not stop the others
        get_run_logger().exception("A bug in the handler; the delivery is dead-lettered")
        reason = f"a bug in the handler ({type(bug).__name__}): mend it, then replay"
        return Settlement(delivery, "dead_letter", reason), False
    settlement = settle_error(delivery, error, settings.retry_policy, now=datetime.now(UTC))
    is_soon = (
        isinstance(error, TransientError) and (error.retry_after_s or 0) <= _LONGEST_WAIT_IN_RUN_S
    )
    return settlement, is_soon


async def _call(
    handle: Handle, delivery: Delivery, threads: DaemonThreadPoolExecutor
) -> Outcome | None:
    if inspect.iscoroutinefunction(handle):
        outcome: Outcome | None = await handle(delivery)
        return outcome
    result = await in_thread_of(threads, handle, delivery)
    return await result if inspect.isawaitable(result) else result


def _ended(report: ConsumerReport) -> State[Any]:
    if report.at_capacity:
        return Completed(message="enough runs are at work already; they take what is waiting")
    by_weight = sorted(report.counts.items(), key=lambda each: (each[0] == "dead_letter", each[0]))
    counts = ", ".join(f"{count} {in_words(status)}" for status, count in by_weight)
    summary = counts or "nothing was waiting"
    if report.lost:
        summary += f", {report.lost} taken over by other runs"
    if not report.failures:
        return Completed(message=summary)
    named = "; ".join(_named(each) for each in report.failures[:_NAMED_FAILURES])
    more = len(report.failures) - _NAMED_FAILURES
    return failed(f"{summary}: {named}" + (f"; and {more} more" if more > 0 else ""))


def _named(failure: Failure) -> str:
    return f"{failure.event} {failure.id} {in_words(failure.status)} ({failure.reason})"


async def _show_failures(integration: str, report: ConsumerReport) -> None:
    await acreate_table_artifact(
        key=f"failed-deliveries-{integration.replace('_', '-')}",
        description=f"What this run could not handle of {integration}. Retry the run, or replay.",
        table=[
            {
                "Delivery": failure.id,
                "Event": failure.event,
                "Became": in_words(failure.status),
                "Why": failure.reason,
                "Next attempt": f"{failure.retry_at:%Y-%m-%d %H:%M:%S} UTC"
                if failure.retry_at
                else "when somebody replays it",
            }
            for failure in report.failures[:_SHOWN_FAILURES]
        ],
    )


class _WithoutUneventfulEnds(logging.Filter):
    """That a delivery was handled its task run says; a line for each costs a fifth of the time."""

    def filter(self, record: logging.LogRecord) -> bool:
        if getattr(record, "task_name", None) != _TASK_NAME:
            return True
        return record.levelno > logging.INFO or not record.getMessage().startswith(_END)


logging.getLogger("prefect.task_runs").addFilter(_WithoutUneventfulEnds())
