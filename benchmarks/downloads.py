"""Runs download cases side by side, each in a process of its own, in interleaved rounds."""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tasks.core.connectors.folders.protocol import RemoteFolder

_PIECE_BYTES = 1024 * 1024

# Imports and prepares in its own time; what it returns is timed.
Case = Callable[[Path], Callable[[], None]]


def arguments(description: str | None, cases: Sequence[str]) -> argparse.Namespace:
    """The command line that both benchmarks take."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--case", choices=cases, help="for itself")
    parser.add_argument("--work", type=Path, help="for itself")
    return parser.parse_args()


def run_case(case: Case, work: Path) -> None:
    """Time one download in this process, without its imports; prints the result as JSON."""
    download = case(work)
    began, cpu_began = time.perf_counter(), _cpu_s()
    download()
    result = {
        "seconds": time.perf_counter() - began,
        "cpu_s": _cpu_s() - cpu_began,
        # Of a child too: one case is another program.
        "peak_mb": max(_peak_mb(resource.RUSAGE_SELF), _peak_mb(resource.RUSAGE_CHILDREN)),
    }
    print(json.dumps(result))


def compare(module: str, work: Path, cases: Sequence[str], *, megabytes: int, rounds: int) -> None:
    """Run every case in every round and print each one's best against the first one's.

    The best of several is what a disturbed machine falsifies least.
    """
    results: dict[str, list[Mapping[str, float]]] = {case: [] for case in cases}
    for _ in range(rounds):
        for case in cases:
            command = [sys.executable, "-m", module, "--case", case, "--work", str(work)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            results[case].append(json.loads(done.stdout.splitlines()[-1]))
            target = work / "downloaded"
            assert target.stat().st_size == megabytes * 1_000_000
            target.unlink()
    bests = {case: min(run["seconds"] for run in runs) for case, runs in results.items()}
    print(f"{megabytes} MB, best of {rounds} interleaved rounds")
    for case, runs in results.items():
        cpu_s, peak_mb = min(run["cpu_s"] for run in runs), max(run["peak_mb"] for run in runs)
        print(
            f"{case:<10} {bests[case]:6.2f} s  {megabytes / bests[case]:6.0f} MB/s  "
            f"{bests[cases[0]] / bests[case]:5.2f}× {cases[0]}  "
            f"processor {cpu_s:5.2f} s  peak {peak_mb:4.0f} MB"
        )


def copy(folder: RemoteFolder, work: Path) -> None:
    """Download as the import does: in pieces, into a file."""
    file = folder.stat("large.bin")
    assert file is not None
    with folder.open(file) as content, (work / "downloaded").open("wb") as target:
        while piece := content.read(_PIECE_BYTES):
            target.write(piece)


def work_directory() -> tempfile.TemporaryDirectory[str]:
    """Where the files are: in memory if possible, so that the disk is not what is measured."""
    memory = Path("/dev/shm")
    return tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None)


def write_file(path: Path, megabytes: int) -> None:
    """Bytes that no compression shortens."""
    with Path("/dev/urandom").open("rb") as chance, path.open("wb") as file:
        for _ in range(megabytes):
            file.write(chance.read(1_000_000))


def _cpu_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def _peak_mb(who: int) -> float:
    return resource.getrusage(who).ru_maxrss / 1024
