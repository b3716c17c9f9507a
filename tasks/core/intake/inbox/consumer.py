"""Consumes the inbox: handles what is due, many at once, each on its own.

A run that finds nothing more stays for a while, so that steady traffic meets a running flow. It
leaves once something failed, and under load it ends soon after a failure, so that a failure
never hides in a run that looks healthy; the next run carries on.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field, model_validator

from blocks.errors import TransientError
from tasks.core.former_names import CONSUMER_SETTINGS, in_present_names
from tasks.core.intake.inbox.consumer_registry import ConsumerRegistry
from tasks.core.intake.inbox.delivery import Delivery
from tasks.core.intake.inbox.request_ending import CALLBACKS
from tasks.core.intake.inbox.rows import LeaseOwner
from tasks.core.intake.inbox.settlement import RetryPolicy, Settlement
from tasks.core.intake.inbox.store import Inbox, LeasesLostError
from tasks.core.threads import in_thread
from tasks.core.ui_labels import ui_label

_NOTIFY_AGAIN_S = 5.0
_RELIEF_WITHIN_S = 30.0  # a successor that has not come by then comes when there is room
_AS_SUCCESSOR_S = 30.0  # so long it does not think itself spare beside its predecessor


class AdvancedConsumerSettings(BaseModel):
    """What seldom needs another value."""

    model_config = ConfigDict(extra="forbid", frozen=True, field_title_generator=ui_label)

    max_runs: int = Field(2, ge=1, description="Runs of this integration at once.")
    max_run_s: float = Field(
        900.0, gt=0, description="After so many seconds the run ends and another carries on."
    )
    keep_warm: bool = Field(
        False,
        description="Keep one run at work all the time: it stays until max_run_s, and leaves "
        "when its successor has come. It takes one place of the worker's for good.",
    )
    report_failures_within_s: float = Field(
        10.0,
        ge=0,
        description="Under load, seconds from the first failure until the run ends as failed.",
    )
    retry_delays_s: list[float] = Field(
        [1.0, 5.0],
        description="Seconds before each retry within the run; later ones are up to the inbox.",
    )
    first_retry_s: float = Field(
        15.0, ge=0, description="Seconds until another run tries again; doubles each time."
    )
    max_retry_s: float = Field(3600.0, ge=0, description="The longest such wait.")
    lease_s: float = Field(
        30.0,
        gt=0,
        description="If the run dies, others take over what it had leased after so many seconds.",
    )

    @model_validator(mode="before")
    @classmethod
    def _take_former_names(cls, values: Any) -> Any:
        return in_present_names(values, CONSUMER_SETTINGS)


class ConsumerSettings(BaseModel):
    """How a run handles an integration's deliveries; the defaults suit most integrations."""

    model_config = ConfigDict(extra="forbid", frozen=True, field_title_generator=ui_label)

    concurrency: int = Field(16, ge=1, le=200, description="Deliveries handled at once.")
    handle_timeout_s: float = Field(
        60.0, gt=0, description="Seconds that one attempt at one delivery may take."
    )
    max_attempts: int = Field(
        12, ge=1, description="After so many runs failed to handle a delivery it is dead-lettered."
    )
    idle_timeout_s: float = Field(
        10.0, ge=0, description="Seconds to wait for more once the inbox is empty."
    )
    advanced: AdvancedConsumerSettings = AdvancedConsumerSettings()

    @model_validator(mode="before")
    @classmethod
    def _take_former_form(cls, values: Any) -> Any:
        # under former names, or beside what is now under `advanced`
        values = in_present_names(values, CONSUMER_SETTINGS)
        if not isinstance(values, Mapping):
            return values
        former = {
            name: values[name] for name in AdvancedConsumerSettings.model_fields if name in values
        }
        if not former:
            return values
        rest = {name: value for name, value in values.items() if name not in former}
        return rest | {"advanced": {**rest.get("advanced", {}), **former}}

    @property
    def retry_policy(self) -> RetryPolicy:
        """The part that the inbox carries out."""
        return RetryPolicy(
            self.max_attempts, self.advanced.first_retry_s, self.advanced.max_retry_s
        )


@dataclass(frozen=True, slots=True)
class Failure:
    """One delivery that was not handled, as reports name it."""

    id: str
    event: str
    status: str
    reason: str
    retry_at: datetime | None


@dataclass(slots=True)
class ConsumerReport:
    """What a run did.

    Attributes:
        counts: Settled deliveries by status.
        failures: Those that failed or were dead-lettered.
        lost: Deliveries whose lease ran out while they were handled; others decide about them.
        at_capacity: Enough runs were at work already, so nothing was leased.
    """

    counts: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    lost: int = 0
    at_capacity: bool = False


class Handler(Protocol):
    """Handles one delivery and says how it ended; raises nothing but cancellation."""

    def __call__(self, delivery: Delivery, /) -> Awaitable[Settlement]:
        """Handle it."""
        ...


class InboxConsumer:
    """One run's work on one integration's deliveries.

    Args:
        inbox: Where deliveries come from and outcomes go.
        consumers: The register of runs at work.
        integration: Whose deliveries.
        run_id: The flow run.
        handle: Called for up to `settings.concurrency` deliveries at once.
        settings: See there.
        notify: Called with an integration's name when its deliveries wait for another run.
        log: What the operator follows.
        poll_s: How often an empty inbox is looked at, and outcomes are written.
        monotonic: Seconds that only grow.
    """

    def __init__(
        self,
        inbox: Inbox,
        consumers: ConsumerRegistry,
        *,
        integration: str,
        run_id: str,
        handle: Handler,
        settings: ConsumerSettings,
        notify: Callable[[str], Awaitable[None]],
        log: logging.Logger | logging.LoggerAdapter[logging.Logger],
        poll_s: float = 0.05,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._inbox = inbox
        self._consumers = consumers
        self._integration = integration
        self._owner = LeaseOwner(run_id, settings.advanced.lease_s)
        self._handle = handle
        self._settings = settings
        self._notify = notify
        self._log = log
        self._poll_s = poll_s
        self._monotonic = monotonic

        self._report = ConsumerReport()
        self._queue: asyncio.Queue[Delivery] = asyncio.Queue()
        self._held: dict[str, Delivery] = {}
        self._ended: list[Settlement] = []
        self._wake = asyncio.Event()
        self._started = self._busy = self._renewed = monotonic()
        self._first_failure: float | None = None
        self._trouble: float | None = None
        self._pending_again: list[str] | None = None
        self._notified: dict[str, float] = {}

    async def run(self) -> ConsumerReport:
        """Handle whatever is due and becomes due, as long as the settings say."""
        try:
            if not await in_thread(
                self._consumers.enter,
                self._integration,
                self._owner,
                max_runs=self._settings.advanced.max_runs,
            ):
                self._report.at_capacity = True
                return self._report
            await self._work()
        finally:
            await in_thread(self._consumers.leave, self._owner)
        # In this order: who stored something before we left counted on us.
        if await in_thread(self._inbox.has_due, self._integration):
            await self._notify(self._integration)
        elif self._settings.advanced.keep_warm:
            await self._notify_if_nobody_is_there(self._integration)
        return self._report

    async def retry(self) -> ConsumerReport:
        """Handle what this run failed to handle before, at once, and nothing else."""
        self._pending_again = await in_thread(self._inbox.unfinished_of_run, self._owner.run_id)
        await self._work()
        return self._report

    async def _work(self) -> None:
        workers = [
            asyncio.create_task(self._handle_queued()) for _ in range(self._settings.concurrency)
        ]
        try:
            try:
                while not await self._tick_or_wait_for_the_database():
                    await self._pause()
                    for worker in workers:
                        if worker.done():  # handlers raise nothing, so this is a bug: show it
                            worker.result()
            finally:
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)
        except BaseException:
            with suppress(TransientError):  # why it ends counts; leases run out by themselves
                await self._let_go()
            raise

    async def _let_go(self) -> None:
        """Store how deliveries ended that are handled already, give back the others."""
        ended, self._ended = self._ended, []
        for settlement in ended:
            self._held.pop(settlement.delivery.id, None)
        try:
            if ended:
                with suppress(LeasesLostError):  # the call that we were cancelled in has stored it
                    await in_thread(self._inbox.settle, ended)
        finally:
            await in_thread(self._inbox.release, list(self._held.values()))
        await self._notify_others(ended)

    async def _handle_queued(self) -> None:
        while True:
            delivery = await self._queue.get()
            self._ended.append(await self._handle(delivery))
            if self._queue.empty():
                self._wake.set()

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(self._poll_s):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()

    async def _tick_or_wait_for_the_database(self) -> bool:
        try:
            finished = await self._tick()
        except TransientError as error:
            now = self._monotonic()
            if self._trouble is None:
                self._trouble = now
                self._log.warning("%s; trying again", error)
            if now - self._trouble > self._settings.advanced.lease_s:
                raise  # by now everything held is lost
            await asyncio.sleep(self._poll_s)
            return False
        self._trouble = None
        return finished

    async def _tick(self) -> bool:
        """Write what ended, renew leases, lease what there is room for.

        Returns:
            True when there is nothing left to do.
        """
        await self._settle_ended()
        now = self._monotonic()
        if now - self._renewed >= self._settings.advanced.lease_s / 3:
            await self._renew()
            self._renewed = now
        if self._is_ending(now) and await self._is_relieved(now):
            return not self._held
        for delivery in await self._lease():
            self._queue.put_nowait(delivery)
        if self._held:
            self._busy = now
            return False
        return now - self._busy >= await self._idle_timeout_s()

    def _is_ending(self, now: float) -> bool:
        if now - self._started >= self._settings.advanced.max_run_s:
            return True
        return (
            self._first_failure is not None
            and self._pending_again is None
            and now - self._first_failure >= self._settings.advanced.report_failures_within_s
        )

    async def _is_relieved(self, now: float) -> bool:
        """Whether a run that is kept warm may end: its successor has come, or is late."""
        overdue_s = now - self._started - self._settings.advanced.max_run_s
        if (
            not self._settings.advanced.keep_warm
            or self._report.failures
            or overdue_s > _RELIEF_WITHIN_S
        ):
            return True
        if now - self._notified.get(self._integration, -_NOTIFY_AGAIN_S) >= _NOTIFY_AGAIN_S:
            self._notified[self._integration] = now
            await self._notify(self._integration)
        return await in_thread(self._consumers.at_work, self._integration) > 1

    async def _idle_timeout_s(self) -> float:
        if self._report.failures or self._pending_again is not None:
            return 0.0
        is_kept_warm = self._settings.advanced.keep_warm
        if is_kept_warm and self._monotonic() - self._started < _AS_SUCCESSOR_S:
            return math.inf
        if await in_thread(self._consumers.is_spare, self._integration, self._owner):
            return 0.0
        if is_kept_warm:
            return math.inf
        # whoever finds nothing was started while another run took it all: its place is for others
        return self._settings.idle_timeout_s if self._report.counts else 0.0

    async def _lease(self) -> list[Delivery]:
        room = min(4 * self._settings.concurrency, 500) - len(self._held)
        if room <= self._settings.concurrency and self._held:
            return []  # enough is queued; fewer and larger leases are cheaper
        if any(delivery.lapsed for delivery in self._held.values()):
            return []  # it may take the process with it: nothing else comes along
        if self._pending_again is not None:
            return await self._lease_again(room)

        def lease() -> list[Delivery]:
            may_be_lapsed = not self._held
            return self._hold(
                self._inbox.lease(
                    self._integration, self._owner, limit=room, may_be_lapsed=may_be_lapsed
                )
            )

        return await in_thread(lease)

    async def _lease_again(self, room: int) -> list[Delivery]:
        ids = (self._pending_again or [])[:room]
        leased = await in_thread(lambda: self._hold(self._inbox.lease_again(ids, self._owner)))
        taken = {delivery.id for delivery in leased}
        self._pending_again = [each for each in self._pending_again or [] if each not in taken]
        return leased

    def _hold(self, leased: list[Delivery]) -> list[Delivery]:
        """Remember what was leased: in the thread, as a run that is cancelled gets no result."""
        self._held.update((delivery.id, delivery) for delivery in leased)
        return leased

    async def _settle_ended(self) -> None:
        ended = self._ended[:500]
        if not ended:
            return
        lost: set[str] = set()
        try:
            await in_thread(self._inbox.settle, ended)
        except LeasesLostError as error:
            self._log.warning("%s", error)
            lost = set(error.ids)
        del self._ended[: len(ended)]
        for settlement in ended:
            self._held.pop(settlement.delivery.id, None)
            if settlement.delivery.id in lost:
                self._report.lost += 1
            else:
                self._count(settlement)
        await self._notify_others(ended)

    async def _notify_others(self, ended: Sequence[Settlement]) -> None:
        targets = {each.integration for each in ended if each.integration is not None}
        if self._inbox.has_results_to_send:
            self._inbox.has_results_to_send = False
            targets.add(CALLBACKS)
        for target in targets:
            await self._notify_if_nobody_is_there(target)

    def _count(self, settlement: Settlement) -> None:
        self._report.counts[settlement.status] += 1
        if settlement.is_failure:
            if self._first_failure is None:
                self._first_failure = self._monotonic()
            self._report.failures.append(
                Failure(
                    settlement.delivery.id,
                    settlement.delivery.event,
                    settlement.status,
                    settlement.reason,
                    settlement.retry_at,
                )
            )

    async def _notify_if_nobody_is_there(self, integration: str) -> None:
        now = self._monotonic()
        if now - self._notified.get(integration, -_NOTIFY_AGAIN_S) < _NOTIFY_AGAIN_S:
            return  # a run takes a while to start
        if not await in_thread(self._consumers.at_work, integration):
            self._notified[integration] = now
            await self._notify(integration)

    async def _renew(self) -> None:
        lost = await in_thread(self._inbox.extend, list(self._held.values()), self._owner)
        for delivery in lost:
            self._log.warning(
                "the lease of delivery %s ran out; another run takes it over", delivery.id
            )
        await in_thread(self._consumers.renew, self._owner)
