"""Tasks of a report export: build the file once, deliver it once to each destination, report."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from prefect import State, task
from prefect.artifacts import acreate_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run
from sqlalchemy import Engine

from blocks.errors import (
    IntegrationError,
    MisconfiguredError,
    UnreachableError,
    UpstreamBusyError,
)
from blocks.mail_server import MailServer
from blocks.sms_account import SmsAccount
from tasks.api import is_transient
from tasks.connections import load_connection
from tasks.core.connectors.http.errors import OutcomeUnknownError
from tasks.core.formats.reports import building
from tasks.core.formats.reports.building import NoData, ReportFormat
from tasks.core.formats.reports.packaging import Package
from tasks.core.formats.reports.period import Period, PeriodRule
from tasks.core.formats.reports.report import Chart, Kind, Report, ReportColumn
from tasks.core.formats.reports.rows import Rows
from tasks.core.formats.reports.xlsx_report import XlsxReport
from tasks.core.state.database import open_database
from tasks.core.sync.report_export.delivery_ledger import (
    AlreadyDelivered,
    DeliveryLease,
    DeliveryLedger,
    Receipt,
)
from tasks.core.sync.report_export.destinations import (
    Destination,
    FolderDestination,
    MailDestination,
)
from tasks.core.sync.report_export.report_cache import (
    cache_report,
    cached_report,
    drop_cached_report,
    sweep_reports,
)
from tasks.core.sync.report_export.sending import (
    BuiltReport,
    put_report,
    report_mail,
    report_sms,
)
from tasks.core.sync.report_export.summary import DeliveryResult, report_summary, summarize
from tasks.core.threads import in_thread
from tasks.folders import FOLDER_BLOCKS, open_folder
from tasks.mail import hand_in
from tasks.outcomes import failed
from tasks.sms import hand_over

__all__ = [
    "FOLDER_VARIABLE",
    "Chart",
    "Destination",
    "Kind",
    "NoData",
    "Package",
    "Period",
    "PeriodRule",
    "Report",
    "ReportColumn",
    "ReportFormat",
    "Send",
    "XlsxReport",
    "build_report_file",
    "cached_built_report",
    "deliver_everywhere",
    "deliver_report",
    "drop_cached_report_of_run",
    "show_report",
    "summarize",
]


FOLDER_VARIABLE = "INTEGRATIONS_REPORTS_DIR"
_KEPT_FOR = timedelta(days=14)


@task(task_run_name="build {report.name} {report.period.key}", cache_policy=NO_CACHE)
async def build_report_file(
    report: Report,
    rows: Rows,
    file_format: ReportFormat,
    *,
    name_template: str = "{report}-{start}",
    package: Package | None = None,
    no_data: NoData = "empty",
) -> BuiltReport | None:
    """Build the file and cache it until `drop_cached_report_of_run`, for retries of this run.

    Files of runs that failed for good are removed after 14 days, when the next report is built.

    Args:
        report: The report.
        rows: The data.
        file_format: Options of the format.
        name_template: Template of the name; see `tasks.core.formats.reports.names.report_name`.
        package: Zip or encrypt it.
        no_data: Without rows: write an empty report, return None, or fail.

    Raises:
        BadPayloadError: There are no rows and `no_data` says fail, or a value has the wrong kind.
        MisconfiguredError: The format, name or package cannot be written as asked.
    """

    def build() -> BuiltReport | None:
        sweep_reports(_reports_folder(), older_than=_KEPT_FOR, now=datetime.now(UTC))
        with ExitStack() as unless_kept:
            unless_kept.callback(drop_cached_report, _run_folder())
            file = building.build_report(
                _run_folder(),
                report,
                rows,
                file_format,
                name_template=name_template,
                package=package,
                no_data=no_data,
            )
            if file is None:
                return None
            built = BuiltReport(report, file)
            cache_report(_run_folder(), built)
            unless_kept.pop_all()
            return built

    try:
        return await in_thread(build)
    except ValueError as exc:
        raise MisconfiguredError(
            str(exc), system=f"report {report.name}", operation="build"
        ) from exc


async def cached_built_report() -> BuiltReport | None:
    """Return the file that an earlier attempt of this run built, if it is here and unchanged."""
    return await in_thread(cached_report, _run_folder())


async def drop_cached_report_of_run() -> None:
    """Remove this run's file; call it when every destination has it."""
    await in_thread(drop_cached_report, _run_folder())


async def deliver_everywhere(
    built: BuiltReport,
    destinations: Sequence[Destination],
    *,
    replace: bool = False,
    retries: int = 2,
    retry_delay_s: float = 30,
) -> list[DeliveryResult]:
    """Deliver to each destination as its own task run; folders first, for their links.

    Args:
        built: The report.
        destinations: Each has its own name.
        replace: Deliver again what another run delivered for this period.
        retries: Most retries of a delivery within the run, after transient failures.
        retry_delay_s: Seconds before each retry.

    Returns:
        One outcome per destination, in the given order.
    """
    names = [destination.name for destination in destinations]
    if len(set(names)) < len(names):
        raise MisconfiguredError(
            "a destination is named twice; take one out",
            system=f"report {built.report.name}",
            operation="deliver",
        )
    with_retries = deliver_report.with_options(
        retries=retries, retry_delay_seconds=retry_delay_s, retry_condition_fn=is_transient
    )
    folders = [d.name for d in destinations if isinstance(d, FolderDestination)]

    async def deliver(destination: Destination) -> DeliveryResult:
        running: Any = with_retries(
            built, destination, folders=folders, replace=replace, return_state=True
        )
        state: State[Any] = await running  # Prefect's types take it for a synchronous task
        result = await state.aresult(raise_on_failure=False)
        if isinstance(result, DeliveryResult):
            return result
        if isinstance(result, IntegrationError):
            return DeliveryResult(destination.name, "failed", error=result)
        raise result

    outcomes: dict[str, DeliveryResult] = {}
    for are_folders in (True, False):
        wave = [d for d in destinations if isinstance(d, FolderDestination) is are_folders]
        for outcome in await asyncio.gather(*map(deliver, wave)):
            outcomes[outcome.destination] = outcome
    return [outcomes[name] for name in names]


@task(
    task_run_name="deliver to {destination.name}",
    cache_policy=NO_CACHE,
    persist_result=False,
    retry_condition_fn=is_transient,
)
async def deliver_report(
    built: BuiltReport,
    destination: Destination,
    *,
    folders: Sequence[str] = (),
    replace: bool = False,
) -> DeliveryResult | State[DeliveryResult]:
    """Deliver one report to one destination, once per period; a failure ends this task run.

    Args:
        built: The report.
        destination: The destination.
        folders: Names of the destinations whose links messages may hold, the best first.
        replace: As in `deliver_everywhere`.
    """
    try:
        send = await _sender(destination)
        return await in_thread(_deliver_once, built, destination, send, folders, replace)
    except IntegrationError as exc:
        return failed(str(exc), data=exc)


async def show_report(built: BuiltReport, outcomes: Sequence[DeliveryResult]) -> None:
    """Put totals, chart and a link to each delivered file into the Prefect UI."""
    key = "".join(c if c.isascii() and c.isalnum() else "-" for c in built.report.name.lower())
    await acreate_markdown_artifact(
        report_summary(built, outcomes),
        key=f"report-{key}".strip("-"),
        description=f"{built.report.title}, {built.report.period}",
    )


Send = Callable[[BuiltReport, DeliveryLease, str | None], Receipt]


async def _sender(destination: Destination) -> Send:
    """Load the destination's block and return the function that delivers to it."""
    if isinstance(destination, FolderDestination):
        place = await load_connection(destination.block, *FOLDER_BLOCKS)

        def put(built: BuiltReport, lease: DeliveryLease, _link: str | None) -> Receipt:
            with open_folder(place) as folder:
                return put_report(folder, built, destination, lease)

        return put
    if isinstance(destination, MailDestination):
        server = await load_connection(destination.block, MailServer)

        def mail(built: BuiltReport, lease: DeliveryLease, link: str | None) -> Receipt:
            sent = hand_in(server, report_mail(built, destination, lease, link))
            return Receipt(
                built.file.name, built.file.size, built.file.sha256, None if sent.attached else link
            )

        return mail
    account = await load_connection(destination.block, SmsAccount)

    def text(built: BuiltReport, lease: DeliveryLease, link: str | None) -> Receipt:
        since_at = built.report.period.end_at if lease.uncertain else None
        hand_over(account, report_sms(built, destination, link), look_since_at=since_at)
        return Receipt(built.file.name, built.file.size, built.file.sha256, link)

    return text


def _deliver_once(
    built: BuiltReport,
    destination: Destination,
    send: Send,
    folders: Sequence[str],
    replace: bool,
) -> DeliveryResult:
    report, period = built.report.name, built.report.period.key
    with _database() as engine:
        deliveries = DeliveryLedger(engine, owner=_run_id())
        found = deliveries.lease(report, period, destination.name, replace=replace)
        if isinstance(found, AlreadyDelivered):
            return DeliveryResult(
                destination.name, "already delivered", found.receipt, found.revision
            )
        if not isinstance(found, DeliveryLease):
            raise UpstreamBusyError(
                f"another run is delivering it, until {found.until_at:%H:%M:%S} UTC at the latest",
                system=destination.name,
                operation="deliver",
                record=built.file.name,
            )
        try:
            receipt = send(built, found, _link(deliveries, built, folders))
        except IntegrationError as exc:
            unclear = isinstance(exc, UnreachableError | OutcomeUnknownError)
            deliveries.release(found, reason=str(exc), uncertain=unclear)
            raise
        except asyncio.CancelledError:
            deliveries.release(found, reason="the run was cancelled", uncertain=True)
            raise
        except ValueError as exc:  # a text's template
            deliveries.release(found, reason=str(exc))
            raise MisconfiguredError(
                str(exc), system=destination.name, operation="deliver", record=built.file.name
            ) from exc
        deliveries.settle(found, receipt)
    result: Literal["replaced", "delivered"] = "replaced" if found.revision > 1 else "delivered"
    return DeliveryResult(destination.name, result, receipt, found.revision)


def _link(deliveries: DeliveryLedger, built: BuiltReport, folders: Sequence[str]) -> str | None:
    delivered = deliveries.delivered(built.report.name, built.report.period.key)
    return next((delivered[name].link for name in folders if name in delivered), None)


@contextmanager
def _database() -> Iterator[Engine]:
    engine = open_database()
    try:
        yield engine
    finally:
        engine.dispose()


def _reports_folder() -> Path:
    configured = os.environ.get(FOLDER_VARIABLE)
    return Path(configured) if configured else Path.home() / ".integration-patterns" / "reports"


def _run_folder() -> Path:
    return _reports_folder() / _run_id()


def _run_id() -> str:
    return str(flow_run.id or "by-hand")
