"""Reading and validating CSV against a bare script, in one run on one machine.

    python -m benchmarks.csv_reading [--rows 1000000] [--repeat 3]

The peer is `csv.reader` and `Model.model_validate` in a loop: no line numbers, no check of
encoding, header or width, no limits. Both read the same file of 8 columns in a process of their
own, turn and turn about; seconds of processor time without the imports, as other work on the
machine comes and goes, and the best run counts.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from pathlib import Path

from pydantic import BaseModel

_PEER = "bare loop"
_OURS = "ours"
_CASES = ("plain", "with empty cells", "with decimal commas")


class StockItem(BaseModel):
    """What an item of a stock list may be."""

    sku: str
    name: str
    quantity: int
    warehouse: str | None = None
    unit_price: Decimal
    currency: str
    counted_at: datetime
    active: bool


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.csv_reading")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeat", type=int, default=3, help="the best of so many runs counts")
    parser.add_argument("--case", nargs=2, metavar=("HOW", "FILE"), help=argparse.SUPPRESS)
    parser.add_argument("--comma", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        how, file = arguments.case
        measure({_PEER: bare, _OURS: ours}[how](comma=arguments.comma), Path(file))
        return
    with tempfile.TemporaryDirectory() as folder:
        for rows in (arguments.rows // 10, arguments.rows):
            for case in _CASES:
                compare(case, rows, arguments.repeat, Path(folder))


def compare(case: str, rows: int, repeat: int, folder: Path) -> None:
    file = folder / "stock.csv"
    comma = case == "with decimal commas"
    write(file, rows, warehouse="" if case == "with empty cells" else "W1", comma=comma)
    best: dict[str, dict] = {}
    for _ in range(repeat):
        for how in (_PEER, _OURS):
            result = run(how, file, comma=comma)
            if how not in best or result["s"] < best[how]["s"]:
                best[how] = result
    print(f"{rows:,} rows of 8 columns, {case}")
    for how, result in best.items():
        assert result["rows"] == rows
        ratio = best[_PEER]["s"] / result["s"]
        print(
            f"  {how:12}{result['s']:>7.2f} s{rows / result['s']:>12,.0f} rows/s"
            f"{result['peak_mb']:>7.0f} MB{ratio:>8.2f} x"
        )


def run(how: str, file: Path, *, comma: bool) -> dict:
    command = [sys.executable, "-m", "benchmarks.csv_reading", "--case", how, str(file)]
    done = subprocess.run(
        [*command, "--comma"] if comma else command, check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout)


def measure(read: Callable[[Path], int], file: Path) -> None:
    started = time.process_time()
    rows = read(file)
    seconds = time.process_time() - started
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"rows": rows, "s": seconds, "peak_mb": peak_mb}))


def write(file: Path, rows: int, *, warehouse: str, comma: bool) -> None:
    chance = random.Random(1)
    with file.open("w", newline="", encoding="utf-8") as text:
        writer = csv.writer(text, delimiter=";" if comma else ",")
        writer.writerow(StockItem.model_fields)
        for row in range(rows):
            price = f"{chance.random() * 100:.2f}"
            writer.writerow(
                [
                    f"{row:07d}",
                    f"Widget, size {row % 977}",
                    chance.randrange(1000),
                    warehouse,
                    price.replace(".", ",") if comma else price,
                    "EUR",
                    f"2026-11-{row % 28 + 1:02d}T10:00:00Z",
                    "true",
                ]
            )


def bare(*, comma: bool) -> Callable[[Path], int]:
    def read(path: Path) -> int:
        count = 0
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.reader(file, delimiter=";" if comma else ",")
            header = next(reader)
            for row in reader:
                values = dict(zip(header, row, strict=False))
                if "" in row:
                    values = {name: cell or None for name, cell in values.items()}
                if comma:
                    values["unit_price"] = values["unit_price"].replace(",", ".")
                StockItem.model_validate(values)
                count += 1
        return count

    return read


def ours(*, comma: bool) -> Callable[[Path], int]:
    from tasks.core.formats.records.formats import CsvFormat
    from tasks.core.formats.records.reading import read_records
    from tasks.core.formats.records.validation import RecordValidator, Valid

    validator = RecordValidator(StockItem, decimal_comma=comma)

    def read(path: Path) -> int:
        records = read_records(path, CsvFormat(), system="folder", name=path.name)
        return sum(1 for outcome in validator.validate(records) if isinstance(outcome, Valid))

    return read


if __name__ == "__main__":
    main()
