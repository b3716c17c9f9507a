"""Report files against the bare libraries, in one run on one machine.

    python -m benchmarks.report [--rows 1000000] [--pdf-rows 20000] [--repeat 1]

Each case runs in a process of its own, from the same generated chunks: seconds of processor time
without the imports, as other work on the machine comes and goes; rows a second of it; and the
greatest memory of the process. Ours also types and checks every
value, neutralises formulas, converts instants to local time and adds up totals and a chart.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.harness.processes import peak_mb, result_of

_CHUNK = 50_000
_CUSTOMERS = np.array(["Müller, GmbH", "=ACME()", "Žižka & syn", "Smith Ltd"], dtype=object)
_REGIONS = np.array(["North", "South", "East", "West"], dtype=object)
_PAIRS = (
    ("csv", "ours", "pandas to_csv"),
    ("xlsx", "ours", "openpyxl write-only"),
    ("pdf", "ours", "reportlab LongTable"),
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--pdf-rows", type=int, default=20_000)
    parser.add_argument("--repeat", type=int, default=1, help="the best of so many runs counts")
    parser.add_argument("--case", nargs=2, metavar=("FORMAT", "HOW"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        measure(
            *arguments.case, arguments.pdf_rows if arguments.case[0] == "pdf" else arguments.rows
        )
        return
    print(
        f"{'format':7}{'how':22}{'rows':>10}{'CPU s':>8}{'rows/s':>11}{'peak MB':>9}{'file MB':>9}"
    )
    for file_format, *ways in _PAIRS:
        best: dict[str, dict] = {}
        # Turn and turn about: a machine that gets slower does so for both.
        for _ in range(arguments.repeat):
            for how in ways:
                result = run(file_format, how, arguments)
                if how not in best or result["s"] < best[how]["s"]:
                    best[how] = result
        for how in ways:
            r = best[how]
            print(
                f"{file_format:7}{how:22}{r['rows']:>10,}{r['s']:>8.1f}{r['rows'] / r['s']:>11,.0f}"
                f"{r['peak_mb']:>9.0f}{r['file_mb']:>9.1f}"
            )
        ours, theirs = (best[how] for how in ways)
        print(
            f"{'':7}ratio: {theirs['s'] / ours['s']:.2f} x their speed, "
            f"{ours['peak_mb'] / theirs['peak_mb']:.2f} x their memory"
        )


def run(file_format: str, how: str, arguments: argparse.Namespace) -> dict:
    return result_of(
        [
            sys.executable, "-m", "benchmarks.report", "--case", file_format, how,
            "--rows", str(arguments.rows), "--pdf-rows", str(arguments.pdf_rows),
        ]
    )  # fmt: skip


def measure(file_format: str, how: str, rows: int) -> None:
    write = _WRITERS[file_format, how]()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report"
        started = time.process_time()
        write(path, rows)
        seconds = time.process_time() - started
        size = path.stat().st_size
    print(json.dumps({"rows": rows, "s": seconds, "peak_mb": peak_mb(), "file_mb": size / 1e6}))


def frames(rows: int) -> Iterator[pd.DataFrame]:
    for start in range(0, rows, _CHUNK):
        i = np.arange(start, min(start + _CHUNK, rows))
        chance = np.random.default_rng(start)
        yield pd.DataFrame(
            {
                "order_no": [f"SO-{number:08d}" for number in i],
                "customer": _CUSTOMERS[i % 4],
                "ordered_at": pd.Timestamp("2026-07-16T17:00Z")
                + pd.to_timedelta(i % 600_000, unit="s"),
                "region": _REGIONS[i % 4],
                "lines": chance.integers(1, 100, len(i)),
                "price": np.round(chance.random(len(i)) * 100, 2),
                "total": np.round(chance.random(len(i)) * 1000, 2),
                "paid": i % 3 == 0,
            }
        )


def our_writer(file_format: str) -> Callable[[Path, int], None]:
    from pydantic import TypeAdapter

    from tasks.core.formats.reports.building import ReportFormat, write_report
    from tasks.core.formats.reports.period import PeriodRule
    from tasks.core.formats.reports.report import Chart, Kind, Report, ReportColumn

    rule = PeriodRule(unit="week", weekday="thursday", at="19:00", zone="Europe/Berlin")
    report = Report(
        name="sales",
        title="Weekly sales",
        period=rule.period_at(datetime(2026, 7, 23, 17, tzinfo=UTC)),
        columns=(
            ReportColumn(name="order_no", title="Order"),
            ReportColumn(name="customer", title="Customer"),
            ReportColumn(name="ordered_at", title="Ordered at", kind=Kind.INSTANT),
            ReportColumn(name="region", title="Region"),
            ReportColumn(name="lines", title="Lines", kind=Kind.INTEGER, total=True),
            ReportColumn(name="price", title="Price", kind=Kind.NUMBER),
            ReportColumn(name="total", title="Total", kind=Kind.NUMBER, total=True),
            ReportColumn(name="paid", title="Paid", kind=Kind.YES_NO),
        ),
        chart=Chart(label="region", value="total"),
    )
    options = TypeAdapter(ReportFormat).validate_python({"kind": file_format})
    return lambda path, rows: write_report(path, report, frames(rows), options)


def pandas_csv() -> Callable[[Path, int], None]:
    def write(path: Path, rows: int) -> None:
        with path.open("w", newline="") as file:
            for number, frame in enumerate(frames(rows)):
                frame.to_csv(file, index=False, header=number == 0)

    return write


def openpyxl_xlsx() -> Callable[[Path, int], None]:
    import openpyxl

    def write(path: Path, rows: int) -> None:
        book = openpyxl.Workbook(write_only=True)
        sheet = book.create_sheet()
        for number, frame in enumerate(frames(rows)):
            frame["ordered_at"] = frame["ordered_at"].dt.tz_localize(None)
            if number == 0:
                sheet.append(list(frame.columns))
            for row in frame.itertuples(index=False, name=None):
                sheet.append(row)
        book.save(path)

    return write


def reportlab_pdf() -> Callable[[Path, int], None]:
    from reportlab.lib.pagesizes import A4, landscape
    from reportlab.platypus import LongTable, SimpleDocTemplate, TableStyle

    from tasks.core.formats.reports.pdf_text import Typeface

    Typeface()  # registers the same font
    style = TableStyle(
        [("FONTNAME", (0, 0), (-1, -1), "report-notos"), ("FONTSIZE", (0, 0), (-1, -1), 8.5)]
    )

    def write(path: Path, rows: int) -> None:
        cells = []
        for frame in frames(rows):
            cells = cells or [list(frame.columns)]
            cells += [[str(value) for value in row] for row in frame.itertuples(index=False)]
        table = LongTable(cells, repeatRows=1, style=style)
        SimpleDocTemplate(str(path), pagesize=landscape(A4)).build([table])

    return write


_WRITERS: dict[tuple[str, str], Callable[[], Callable[[Path, int], None]]] = {
    ("csv", "ours"): lambda: our_writer("csv"),
    ("csv", "pandas to_csv"): pandas_csv,
    ("xlsx", "ours"): lambda: our_writer("xlsx"),
    ("xlsx", "openpyxl write-only"): openpyxl_xlsx,
    ("pdf", "ours"): lambda: our_writer("pdf"),
    ("pdf", "reportlab LongTable"): reportlab_pdf,
}


if __name__ == "__main__":
    main()
