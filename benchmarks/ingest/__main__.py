"""How many deliveries a second are accepted: `python -m benchmarks.ingest [--peers …]`.

1 KB GitHub deliveries, all different and signed, over 64 connections kept alive, from one
thread of wrk, one server after the other on the same machine.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarks.ingest import load, servers


def main() -> None:
    options = _parser().parse_args()
    with tempfile.TemporaryDirectory(prefix="ingest-") as name:
        folder = Path(name)
        results = {"empty handler": _empty(folder, options.seconds)}
        results["this gateway"] = _gateway(folder, options.requests, options.seconds)
    _show(results)


def _empty(folder: Path, seconds: int) -> load.Result:
    port = servers.free_port()
    file = folder / "requests"
    size = load.write_requests(file, 1000, port=port, path="/webhooks/github")
    with servers.empty_handler(folder, port):
        load.run(port, file, size, 1000, seconds=2)
        return load.run(port, file, size, 1000, seconds=seconds)


def _gateway(folder: Path, count: int, seconds: int) -> load.Result:
    port = servers.free_port()
    file = folder / "requests"
    size = load.write_requests(file, count, port=port, path="/webhooks/github")
    with servers.gateway(folder, port) as server:
        before_mb = servers.resident_mb(server)
        result = load.run(port, file, size, count, seconds=seconds)
        after_mb = servers.resident_mb(server)
    stored = servers.stored_deliveries(folder)
    print(f"gateway: {stored} of {result.requests} accepted are on disk, "
          f"memory {before_mb:.0f} MB before, {after_mb:.0f} MB after")
    return result


def _show(results: dict[str, load.Result]) -> None:
    ceiling = results["empty handler"]
    print(f"{'':22}{'accepts/s':>10}{'p50 ms':>9}{'p99 ms':>9}{'failed':>8}{'of ceiling':>12}")
    for name, result in results.items():
        print(
            f"{name:22}{result.per_second:>10.0f}{result.p50_ms:>9.1f}{result.p99_ms:>9.1f}"
            f"{result.refused + result.broken:>8}{result.per_second / ceiling.per_second:>12.2f}"
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ingest")
    parser.add_argument("--seconds", type=int, default=10, help="for each server")
    parser.add_argument("--requests", type=int, default=200_000, help="distinct deliveries")
    return parser


if __name__ == "__main__":
    main()
