"""Report the application's sales of a period, once to each destination."""

from __future__ import annotations

from typing import Any

from prefect import State
from prefect.runtime import flow_run
from prefect.states import Completed
from pydantic import AwareDatetime

from blocks.http_api import HttpApi
from flows.sales_report.sales import sales_of
from tasks.api import BodyCursor, fetch_records
from tasks.connections import load_connection
from tasks.integration_flow import flow, run_name
from tasks.outcomes import failed
from tasks.reports import (
    Destination,
    NoData,
    Package,
    PeriodRule,
    ReportFormat,
    XlsxReport,
    build_report_file,
    cached_built_report,
    deliver_everywhere,
    drop_cached_report_of_run,
    show_report,
    summarize,
)


@flow(name="sales-report", flow_run_name=run_name("{report}", time="%Y-%m-%d %H:%M"))
async def sales_report(
    destinations: list[Destination],
    report: str = "sales",
    title: str = "Sales",
    period: PeriodRule = PeriodRule(),
    scheduled_for: AwareDatetime | None = None,
    application: str = "http-api/own-app",
    file_format: ReportFormat = XlsxReport(),
    name_template: str = "{report}-{start}",
    package: Package | None = None,
    no_data: NoData = "empty",
    replace: bool = False,
    delivery_retries: int = 2,
    delivery_retry_delay_s: float = 30,
) -> State[Any]:
    """Query the application's orders, build the file, deliver it, and tell what became of it.

    Each destination gets one file a period. Retry delivers the same file to those that do not
    have it yet; another run of the same period finds what is there, or replaces it.

    Args:
        destinations: Folders, e-mails and text messages; messages go out last, with links.
        report: Short name of this report. Reports with one name share their delivery records, so
            give each deployment its own.
        title: What readers see.
        period: Which time is reported, from the scheduled time, in the schedule's zone.
        scheduled_for: Report the period that was over at this time; empty: the run's own time.
        application: The block of the application that knows the orders.
        file_format: CSV, XML, XLSX, PDF or JSON Lines, with its options.
        name_template: File name; knows {report}, {zone}, {start}, {end} and {last_day}, the last
            three with a format such as {end:%G-W%V}.
        package: Zip or encrypt the file.
        no_data: Without orders: send an empty report, skip it, or fail.
        replace: Deliver again what another run delivered for this period.
        delivery_retries: How often a delivery is tried again within the run.
        delivery_retry_delay_s: Seconds before that.
    """
    covered = period.period_at(scheduled_for or flow_run.scheduled_start_time)
    built = await cached_built_report()
    if built is None:
        orders = await fetch_records(
            await load_connection(application, HttpApi),
            "orders",
            BodyCursor(records_path="records"),
            # An order cannot have been stored before it was placed.
            params={"updated_since": covered.start_at.isoformat(), "limit": 1000},
        )
        shown, rows = sales_of(orders, covered, name=report, title=title)
        built = await build_report_file(
            shown,
            rows,
            file_format,
            name_template=name_template,
            package=package,
            no_data=no_data,
        )
    if built is None:
        return Completed(message=f"no orders in {covered}: no report")
    outcomes = await deliver_everywhere(
        built,
        destinations,
        replace=replace,
        retries=delivery_retries,
        retry_delay_s=delivery_retry_delay_s,
    )
    await show_report(built, outcomes)
    good, message = summarize(built, outcomes)
    if not good:
        return failed(message)
    await drop_cached_report_of_run()
    return Completed(message=message)
