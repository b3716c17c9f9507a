"""Read 200,000 records from an API in pages of 200: ours against a bare loop and dlt, in one run.

    python -m benchmarks.data_import [--records 200000] [--latency-ms 20] [--at-once 8]

The API is a process of its own that answers each page after the latency. Every case is a process,
too, and writes what it reads into SQLite by the same function, page by page, each page committed:

    bare          what one writes by hand: httpx.Client, response.json(), a loop
    dlt           dlt's RESTClient with its PageNumberPaginator, in an environment of its own
    ours          one page at a time, the next one fetched while one is written
    ours at once  several pages at a time
    import        one page at a time with all that an import adds: each record checked against a
                  model, known records left out, the cursor's window and the batch in hand stored
                  durably before each page goes into the sink

Printed are records a second and peak memory, for a tenth of the records and for all, and ratios
to the better of bare and dlt.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
import urllib.request
import venv
from pathlib import Path

from benchmarks.harness.processes import result_of

CASES = ("bare", "dlt", "ours", "ours at once", "import")
_FOLDER = Path(__file__).parent


def main() -> None:
    """Run all cases, small and large, and print them side by side."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--latency-ms", type=float, default=20)
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=1, help="the best of so many counts")
    parser.add_argument("--dlt-python", type=Path, help="a Python with dlt; else one is made")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        dlt_python = arguments.dlt_python or environment_with_dlt(work)
        server = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.data_import.server", str(arguments.latency_ms)],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert server.stdout is not None
        try:
            url = server.stdout.readline().strip()
            compare(url, work, arguments, dlt_python)
        finally:
            server.terminate()
            server.wait()


def compare(url: str, work: Path, arguments: argparse.Namespace, dlt_python: Path) -> None:
    """Every case with a tenth of the records, then with all."""
    best: dict[tuple[str, int], tuple[float, float]] = {}
    for records in (arguments.records // 10, arguments.records):
        urllib.request.urlopen(f"{url}/records?count={records}").close()
        for _ in range(arguments.rounds):
            for case in CASES:
                python = dlt_python if case == "dlt" else Path(sys.executable)
                rate, peak_mb = run(python, case, url, work, records, arguments.at_once)
                before = best.get((case, records), (0.0, 0.0))
                best[case, records] = max(before, (rate, peak_mb))
        for case in CASES:
            rate, peak_mb = best[case, records]
            print(f"{case:<13} {records:>9,} records {rate:>9,.0f} records/s {peak_mb:>6.0f} MB")
    large, small = arguments.records, arguments.records // 10
    better = max(best["bare", large][0], best["dlt", large][0])
    print()
    for case in ("ours", "ours at once", "import"):
        rate, peak_mb = best[case, large]
        grown = peak_mb / best[case, small][1]
        print(f"{case:<13} {rate / better:.2f}× the better of bare and dlt; ", end="")
        print(f"memory with ten times the records: {grown:.2f}×")


def run(
    python: Path, case: str, url: str, work: Path, records: int, at_once: int
) -> tuple[float, float]:
    """One case in a process of its own: records a second, peak memory in MB."""
    database = work / f"{case}-{records}-{time.monotonic_ns()}.db"
    script = _FOLDER / ("by_dlt.py" if case == "dlt" else "cases.py")
    result = result_of([python, script, case, url, database, str(at_once)])
    assert result["records"] == records, result
    database.unlink()
    return records / result["seconds"], result["peak_mb"]


def environment_with_dlt(work: Path) -> Path:
    """A Python that has dlt, which the project itself does not need."""
    folder = work / "dlt"
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "dlt", "httpx"], check=True)
    return python


if __name__ == "__main__":
    main()
