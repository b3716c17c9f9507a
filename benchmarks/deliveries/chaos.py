"""Kills parts of the chain under load, round after round: `python -m benchmarks.deliveries.chaos`.

    python -m benchmarks.deliveries.chaos [--rounds 20] [--seed 1] [--database URL]

Each round sends deliveries without a pause and meanwhile, at random moments, kills -9 the
gateway, the worker, the processes that execute flow runs, or the Prefect server, and starts
again what was killed. In the end every acknowledged delivery must have had exactly one effect in
own app: none lost, none twice. Deliveries that were sent and not acknowledged may have one.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.harness.figures import show
from benchmarks.harness.stack import PREFECT_FILE, Stack, running_stack

_SENDERS = 4
_SETTLE_TIMEOUT_S = 240


def main() -> None:
    options = _parser().parse_args()
    chance = random.Random(options.seed)
    with (
        tempfile.TemporaryDirectory(prefix="chaos-") as folder,
        running_stack(
            Path(folder), database_url=options.database, prefect_file=_swept_often(Path(folder))
        ) as stack,
    ):
        faults = [options.fault] if options.fault else list(FAULTS)
        for number in range(options.rounds):
            fault = faults[number % len(faults)]
            play_round(stack, number, fault, chance, options.seconds)
        show("task runs", stack.task_runs())
        show("flow runs", stack.flow_runs())


def _swept_often(folder: Path) -> Path:
    """The same deployments, but a round need not wait a minute for the sweeper."""
    file = folder / "prefect.yaml"
    file.write_text(PREFECT_FILE.read_text().replace("interval: 60", "interval: 10"))
    return file


def play_round(
    stack: Stack, number: int, fault: str, chance: random.Random, seconds: float
) -> None:
    """Send under a fault, then check that every delivery had its effect once."""
    items = stack.make_items_named(
        [f"round-{number}-sender-{sender}" for sender in range(_SENDERS)]
    )
    until = threading.Event()
    with ThreadPoolExecutor(_SENDERS) as senders:
        sending = [senders.submit(_send_until, stack, item, until) for item in items]
        time.sleep(chance.uniform(0.2, 0.6) * seconds)
        told = FAULTS[fault](stack, chance)
        time.sleep(chance.uniform(0.2, 0.4) * seconds)
        until.set()
        counts = {item: future.result() for item, future in zip(items, sending, strict=True)}
    started = time.monotonic()
    stack.wait_until(
        lambda: not _missing(stack, counts), f"round {number}: lost", _SETTLE_TIMEOUT_S
    )
    stack.wait_until(
        lambda: set(stack.statuses()) <= {"done"}, f"round {number}: unsettled", _SETTLE_TIMEOUT_S
    )
    show(
        f"round {number:2} {told}",
        {
            "acknowledged": sum(good for good, _ in counts.values()),
            "unsure": sum(unsure for _, unsure in counts.values()),
            "all effects after s": round(time.monotonic() - started, 1),
        },
    )
    stock = stack.stock()
    for item, (acknowledged, unsure) in counts.items():
        assert acknowledged <= stock[item] <= acknowledged + unsure, (item, stock[item], counts)
    assert stack.effects() == sum(stock.values()), "an effect happened twice under two keys"


def kill_gateway(stack: Stack, _chance: random.Random) -> str:
    """Senders get no answer until it is back."""
    stack.kill("gateway")
    stack.start("gateway")
    return "killed the gateway"


def kill_worker(stack: Stack, chance: random.Random) -> str:
    """Its flow runs may live on or die with it; the next worker starts others."""
    stack.kill("worker")
    time.sleep(chance.uniform(0, 2))
    stack.start("worker")
    return "killed the worker"


def kill_flow_runs(stack: Stack, chance: random.Random) -> str:
    """What they held is taken over when its lease has run out."""
    killed = stack.kill_flow_runs()
    time.sleep(chance.uniform(0, 2))
    killed += stack.kill_flow_runs()
    return f"killed {killed} flow processes"


def stop_server(stack: Stack, chance: random.Random) -> str:
    """The gateway keeps accepting; runs go on or fail, and start again when it is back."""
    stack.kill("server")
    time.sleep(chance.uniform(0.5, 3))
    stack.start("server")
    return "killed the Prefect server"


FAULTS: dict[str, Callable[[Stack, random.Random], str]] = {
    "gateway": kill_gateway,
    "worker": kill_worker,
    "flow": kill_flow_runs,
    "server": stop_server,
}


def _send_until(stack: Stack, item: str, until: threading.Event) -> tuple[int, int]:
    acknowledged = unsure = 0
    while not until.is_set():
        results = stack.send([item] * 5)
        acknowledged += sum(results)
        unsure += len(results) - sum(results)
        time.sleep(0.05)
    return acknowledged, unsure


def _missing(stack: Stack, counts: dict[str, tuple[int, int]]) -> bool:
    stock = stack.stock()
    return any(stock[item] < acknowledged for item, (acknowledged, _) in counts.items())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.deliveries.chaos")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=6, help="of sending in each round")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--fault", choices=list(FAULTS), help="only this one")
    parser.add_argument("--database", help="URL of the inbox's database; SQLite by default")
    return parser


if __name__ == "__main__":
    main()
