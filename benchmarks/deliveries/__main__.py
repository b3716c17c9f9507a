"""Deliveries from accept to effect, with Prefect runs doing it: `python -m benchmarks.deliveries`.

    python -m benchmarks.deliveries [--deliveries 10000] [--latency] [--peers n8n stock-prefect]

Everything runs on this machine: gateway, inbox, Prefect server on SQLite, worker, own app. Each
delivery is a signed inventory update; its effect is one idempotent call to own app, and it is a
task run of its own, whose record in Prefect's database is counted afterwards.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.deliveries import peers
from benchmarks.harness.figures import show, show_latencies, show_ratios
from benchmarks.harness.peers import FOLDER
from benchmarks.harness.stack import Stack, running_stack

_SENDERS = 4
_ITEMS = 50
_DELIVERIES = "INVENTORY_UPDATE %"


def main() -> None:
    options = _parser().parse_args()
    rates: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="deliveries-") as folder:
        with running_stack(Path(folder), database_url=options.database) as stack:
            rates["this project"] = throughput(stack, options.deliveries)
            if options.latency:
                latency(stack)
        if "stock-prefect" in options.peers:
            with tempfile.TemporaryDirectory(prefix="stock-") as other:
                rates["stock-prefect"] = peers.stock_prefect(Path(other), options.stock_runs)
        if "n8n" in options.peers:
            with tempfile.TemporaryDirectory(prefix="n8n-") as other:
                rates["n8n"] = peers.n8n(Path(other), options.peers_folder, options.n8n_deliveries)
    show_ratios(rates, "deliveries/s")


def throughput(stack: Stack, count: int) -> float:
    """Deliveries a second from the first request to the last effect, by a run that is at work."""
    _accept_to_effect_s(stack, "first", wait_for_quiet=False)
    items = stack.make_items(_ITEMS)
    share = [items[number % _ITEMS] for number in range(count // _SENDERS)]
    processor_before_s = stack.processor_by_part_s()
    started = time.monotonic()
    with ThreadPoolExecutor(_SENDERS) as senders:
        acknowledged = sum(map(sum, senders.map(stack.send, [share] * _SENDERS)))
    accepted_s = time.monotonic() - started
    stack.wait_until(lambda: stack.effects() > acknowledged, "not all had effect", 1200)
    took_s = time.monotonic() - started
    stack.wait_until(
        lambda: stack.task_runs(_DELIVERIES).get("Completed", 0) > acknowledged,
        "task runs are missing",
        1200,
    )
    recorded_s = time.monotonic() - started
    processor_ms = {
        part: (taken_s - processor_before_s[part]) / acknowledged * 1000
        for part, taken_s in stack.processor_by_part_s().items()
    }
    assert sum(stack.stock().values()) == stack.effects() == acknowledged + 1
    show(
        "throughput",
        {
            "acknowledged": acknowledged,
            "accepts/s": round(acknowledged / accepted_s),
            "last effect after s": round(took_s, 1),
            "last task run recorded after s": round(recorded_s, 1),
        },
    )
    processor_ms["all parts"] = sum(processor_ms.values())
    show(
        "processor ms a delivery",
        {part: round(taken_ms, 2) for part, taken_ms in processor_ms.items()},
    )
    show("task runs of deliveries", stack.task_runs(_DELIVERIES))
    show("flow runs", stack.flow_runs())
    return acknowledged / took_s


def latency(stack: Stack, *, cold: int = 7, steady: int = 60) -> None:
    """Print the medians from accept to effect: with nothing running, and at one a second."""
    times = [_accept_to_effect_s(stack, number, wait_for_quiet=True) for number in range(cold)]
    show_latencies("cold", times)
    times = []
    for number in range(cold, cold + steady):
        times.append(_accept_to_effect_s(stack, number, wait_for_quiet=False))
        time.sleep(max(0.0, 1 - times[-1]))
    show_latencies("steady", times)


def _accept_to_effect_s(stack: Stack, name: object, *, wait_for_quiet: bool) -> float:
    if wait_for_quiet:
        stack.wait_for_quiet()
    [item] = stack.make_items_named([f"latency-{name}"])
    stack.send([item])
    accepted_at = datetime.now(UTC)
    path = f"/api/v1/inventory/{item}"
    record: dict[str, str] = {}

    def has_effect() -> bool:
        nonlocal record
        record = stack.own_app.http.get(path).json()
        return record["quantity"] == 1

    stack.wait_until(has_effect, "no effect")
    return (datetime.fromisoformat(record["changed_at"]) - accepted_at).total_seconds()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.deliveries")
    parser.add_argument("--deliveries", type=int, default=10_000)
    parser.add_argument("--latency", action="store_true", help="measure latencies too")
    parser.add_argument("--database", help="URL of the inbox's database; SQLite by default")
    parser.add_argument("--peers", nargs="*", default=[], choices=["n8n", "stock-prefect"])
    parser.add_argument("--n8n-deliveries", type=int, default=2000)
    parser.add_argument("--stock-runs", type=int, default=12)
    parser.add_argument("--peers-folder", type=Path, default=FOLDER)
    return parser


if __name__ == "__main__":
    main()
