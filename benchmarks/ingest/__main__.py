"""How many deliveries a second are accepted: `python -m benchmarks.ingest [--peers …]`.

1 KB GitHub deliveries, all different and signed, over 64 connections kept alive, from one
thread of wrk, one server after the other on the same machine. The rounds are interleaved and
the median round counts, since other work on the machine comes and goes.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from operator import sub
from pathlib import Path
from statistics import median_low
from subprocess import Popen

from benchmarks.harness import peers, processes
from benchmarks.ingest import load, servers

CEILING = "empty handler"
GATEWAY = "this gateway"


def main() -> None:
    options = _parser().parse_args()
    rounds: dict[str, list[load.Result]] = {}
    for number in range(options.rounds):
        for name in [CEILING, "server alone", GATEWAY, *options.peers]:
            with tempfile.TemporaryDirectory(prefix="ingest-") as folder:
                result = _measure(name, Path(folder), options)
            rounds.setdefault(name, []).append(result)
            print(f"round {number + 1}: {name} {result.per_second:.0f}/s", flush=True)
    _show({name: _middle(results) for name, results in rounds.items()})


def _measure(name: str, folder: Path, options: argparse.Namespace) -> load.Result:
    port = processes.free_port()
    file = folder / "requests"
    count = options.requests if name == GATEWAY else 1000
    size = load.write_requests(
        file, count, port=port, path=peers.PATHS.get(name, "/webhooks/github")
    )
    with _server(name, folder, port, options) as server:
        if name != GATEWAY:
            load.run(port, file, size, count, seconds=2)
        before_s = processes.processor_s(server)
        result = load.run(port, file, size, count, seconds=options.seconds)
        took_s = map(sub, processes.processor_s(server), before_s)
        each_us = " + ".join(f"{seconds / result.requests * 1e6:.0f}" for seconds in took_s)
        print(f"{name}: {each_us} µs of processor a request")
        return result


def _server(
    name: str, folder: Path, port: int, options: argparse.Namespace
) -> AbstractContextManager[Popen[bytes]]:
    if name == CEILING:
        return servers.empty_handler(folder, port, "starlette")
    if name == GATEWAY:
        return _watched_gateway(folder, port)
    if name == "node-red":
        return peers.node_red(peers.install(name, options.peers_folder), folder, port)
    if name == "n8n":
        return peers.n8n(peers.install(name, options.peers_folder), folder, port)
    return servers.empty_handler(folder, port, "bare")


@contextmanager
def _watched_gateway(folder: Path, port: int) -> Iterator[Popen[bytes]]:
    with servers.gateway(folder, port) as server:
        before_mb = processes.resident_mb(server)
        yield server
        after_mb = processes.resident_mb(server)
    stored = servers.stored_deliveries(folder)
    print(f"gateway: {stored} on disk, memory {before_mb:.0f} MB before, {after_mb:.0f} MB after")


def _middle(results: list[load.Result]) -> load.Result:
    rate = median_low(result.per_second for result in results)
    return next(result for result in results if result.per_second == rate)


def _show(results: dict[str, load.Result]) -> None:
    ceiling, gateway = results[CEILING], results[GATEWAY]
    print(f"\n{'':16}{'accepts/s':>10}{'p50 ms':>9}{'p99 ms':>9}{'failed':>8}{'of ceiling':>12}")
    for name, result in results.items():
        print(
            f"{name:16}{result.per_second:>10.0f}{result.p50_ms:>9.1f}{result.p99_ms:>9.1f}"
            f"{result.refused + result.broken:>8}{result.per_second / ceiling.per_second:>12.2f}"
        )
    for name, result in results.items():
        if name in peers.PATHS:
            print(f"{gateway.per_second / result.per_second:.1f} times {name}")
    print(f"p99 is {gateway.p99_ms / ceiling.p99_ms:.1f} times the empty handler's")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ingest")
    parser.add_argument("--seconds", type=int, default=10, help="for each server and round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=200_000, help="distinct deliveries")
    parser.add_argument("--peers", nargs="*", default=[], choices=sorted(peers.PATHS))
    parser.add_argument(
        "--peers-folder",
        type=Path,
        default=peers.FOLDER,
        help="where peers are installed, once",
    )
    return parser


if __name__ == "__main__":
    main()
