"""Round trips of callers that wait, side by side in one run: `python -m benchmarks.request_reply`.

    python -m benchmarks.request_reply [--cold 10] [--warm 60] [--peer 5] [--database URL]

ours, cold   no run is at work: gateway, notifier, automation, launcher, flow, and all the way back
ours, warm   a run is at work still, as it is after each request: the request is a task run of it
floor        the same logic, called in a bare Starlette handler
peer         stock Prefect: `run_deployment`, awaited in such a handler, on a stock process worker
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import yaml

from benchmarks.harness.figures import median_and_p95
from benchmarks.harness.processes import free_port
from benchmarks.harness.stack import PREPARE, Stack
from sandbox.systems import tax_api
from sandbox.systems.own_app.serving import RunningOwnApp, running_own_app

HERE = Path(__file__).parent
_DEADLINE_S = 5.0  # of the endpoint that is overloaded, as declared
_CALLERS = 200
_REQUESTS_A_CALLER = 3
_FAULT_CALLERS = 40
_FAULT_REQUESTS = 4
_QUOTE = {"country": "DE", "lines": [{"sku": "widgets", "quantity": 3}]}
_MAKE_POOL = "from deployments.work_pool import ensure_work_pool; ensure_work_pool('stock')"
_EVENTS_NEED_S = 6  # the server loads new automations every few seconds


class RequestReplyStack(Stack):
    """The chain with both pools, their workers, and the handlers of floor and peer."""

    def __init__(
        self, folder: Path, own_app: RunningOwnApp, tax_url: str, database: str | None
    ) -> None:
        super().__init__(folder, own_app, database)
        self.handlers_url = f"http://127.0.0.1:{(port := free_port())}"
        self.tax_url = tax_url
        self.environment["INTEGRATIONS_ENDPOINTS"] = str(HERE / "declared")
        python = [sys.executable, "-m"]
        file = HERE / "prefect.yaml"
        self._commands |= {
            "worker": [
                *(*python, "deployments.services.launcher", "--pool=integrations", "--limit=4"),
                f"--prefect-file={file}",
            ],
            "stock-worker": [*python, "prefect", "worker", "start", "--pool=stock"],
            "handlers": [
                *(*python, "uvicorn", "benchmarks.request_reply.handlers:app", f"--port={port}"),
                "--no-access-log",
            ],
        }

    def deploy_all(self) -> None:
        """Save the blocks, make the pools, deploy the flows."""
        blocks = self.folder / "blocks.yaml"
        own_app = {"kind": "api_key", "key": self.own_app.api_key}
        documents = {
            "http-api/own-app": {"base_url": f"{self.own_app.base_url}/api/v1", "auth": own_app},
            "http-api/tax": {
                "base_url": f"{self.tax_url}/v1",
                "auth": {"kind": "api_key", "key": tax_api.API_KEY},
            },
        }
        blocks.write_text(yaml.safe_dump(documents))
        self.run([sys.executable, "-c", PREPARE, str(blocks)])
        self.run([sys.executable, "-c", _MAKE_POOL])
        file = f"--prefect-file={HERE / 'prefect.yaml'}"
        self.run([sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", file])

    def access_log(self) -> list[dict[str, Any]]:
        """What the gateway tells of its requests."""
        lines = (self.folder / "gateway.log").read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def work_deliveries(self) -> dict[str, int]:
        """Requests of the endpoint that is overloaded, by status."""
        output = self.run([sys.executable, "-m", "deployments.inbox", "counts"])
        rows = [line.split() for line in output.splitlines()]
        return {status: int(count) for name, status, count in rows if name == "measured_work"}

    def is_quiet(self) -> bool:
        """Whether no flow run is under way."""
        busy = ("Running", "Pending", "Scheduled", "Late")
        return not any(name.split()[-1] in busy for name in self.flow_runs())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.request_reply")
    parser.add_argument("--cold", type=int, default=10)
    parser.add_argument("--warm", type=int, default=60)
    parser.add_argument("--peer", type=int, default=5)
    parser.add_argument("--faults", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--overload", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--database", help="URL of the state database; SQLite by default")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="synchronous-") as name,
        running_own_app(Path(name) / "own_app.db") as own_app,
        tax_api.start() as tax,
    ):
        offer(own_app)
        stack = RequestReplyStack(Path(name), own_app, tax.url, options.database)
        try:
            stack.start("server")
            stack.start("gateway")
            stack.deploy_all()
            for part in ("worker", "stock-worker", "handlers"):
                stack.start(part)
            stack.wait_until(lambda: answers(stack.handlers_url), "the handlers did not start")
            time.sleep(_EVENTS_NEED_S)
            compare(stack, options)
            if options.overload:
                asyncio.run(overload(stack))
            if options.faults:
                asyncio.run(faults(stack))
        finally:
            stack.stop()


def offer(own_app: RunningOwnApp) -> None:
    """Put the article that is asked for into the application."""
    product = {"sku": "widgets", "name": "W", "price": "12.50", "currency": "EUR", "active": True}
    own_app.http.put("/api/v1/products/widgets", json=product).raise_for_status()
    item = {"sku": "widgets", "name": "W", "quantity": 100}
    own_app.http.put("/api/v1/inventory/widgets", json=item).raise_for_status()


def answers(url: str) -> bool:
    """Whether somebody listens."""
    try:
        return httpx.get(f"{url}/healthz").is_success
    except httpx.TransportError:
        return False


def compare(stack: RequestReplyStack, options: argparse.Namespace) -> None:
    """Print the round trips of the four ways, and their ratios."""
    with httpx.Client(timeout=150) as client:

        def asking(url: str, body: object) -> Callable[[], None]:
            def ask() -> None:
                client.post(url, json=body).raise_for_status().json()

            return ask

        if not (options.cold or options.warm or options.peer):
            return
        for what, name, body in (
            ("a flow that does nothing", "nothing", {"a": 1}),
            ("the quote", "quote", _QUOTE),
        ):
            floor = asking(f"{stack.handlers_url}/{name}", body)
            ours = asking(f"{stack.places.gateway_url}/{name}", body)
            peer = asking(f"{stack.handlers_url}/stock-{name}", body)
            for ask in (floor, ours, ours):  # the first run makes files and caches
                ask()
            took = {"ours, warm": measure(ours, options.warm)}
            took["floor"] = measure(floor, options.warm)
            took["ours, cold"], took["peer"] = [], []
            for number in range(max(options.cold, options.peer)):
                stack.wait_until(stack.is_quiet, "a run does not end")
                if number < options.cold:
                    took["ours, cold"] += measure(ours, 1)
                stack.wait_until(stack.is_quiet, "a run does not end")
                if number < options.peer:
                    took["peer"] += measure(peer, 1)
            show(what, took)


def measure(once: Callable[[], None], count: int) -> list[float]:
    """Seconds of each round trip."""
    took = []
    for _ in range(count):
        began = time.perf_counter()
        once()
        took.append(time.perf_counter() - began)
    return took


def show(what: str, took_s: dict[str, list[float]]) -> None:
    """One line a way, and how it compares."""
    print(f"\n{what}")
    peer = statistics.median(took_s["peer"]) if took_s["peer"] else None
    floor = statistics.median(took_s["floor"])
    for way, values in took_s.items():
        if not values:
            continue
        p50, p95 = median_and_p95(values)
        ratios = f"  {p50 / floor:8.1f} × the floor"
        if peer is not None and way.startswith("ours"):
            ratios += f", {peer / p50:.1f} × faster than the peer"
        print(
            f"  {way:11} n={len(values):<3} p50 {p50:7.3f} s  p95 {p95:7.3f} s{ratios}", flush=True
        )


async def overload(stack: RequestReplyStack) -> None:
    """Two hundred callers at once, at several times of what the flow can do."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(
        base_url=stack.places.gateway_url, timeout=_DEADLINE_S + 30, limits=limits
    ) as client:
        found: list[tuple[int, float, str]] = []

        async def call(number: int) -> None:
            for turn in range(_REQUESTS_A_CALLER):
                began = time.perf_counter()
                answer = await client.post("/work", json=[number, turn])
                took = time.perf_counter() - began
                location = answer.headers.get("location", "")
                assert answer.status_code != 200 or answer.json() == [number, turn]
                found.append((answer.status_code, took, location))
                if answer.status_code == 503:
                    await asyncio.sleep(float(answer.headers["retry-after"]))

        await client.post("/work", json=[])  # a run is at work
        await asyncio.gather(*(call(number) for number in range(_CALLERS)))
        later = [location for status, _, location in found if status == 202]
        results = [await fetch(client, location) for location in later]
    counts = Counter(status for status, _, _ in found)
    late = sum(took > _DEADLINE_S + 1 for _, took, _ in found)
    print(f"\n{_CALLERS} callers at once, {_REQUESTS_A_CALLER} requests each, deadline 5 s")
    print(f"  answers: {dict(sorted(counts.items()))}, of {_CALLERS * _REQUESTS_A_CALLER}")
    print(f"  slowest {max(took for _, took, _ in found):.2f} s; {late} later than deadline + 1 s")
    own = [line["ms"] / 1000 for line in stack.access_log() if line.get("endpoint") == "work"]
    print(f"  as the gateway measured: slowest {max(own):.2f} s")
    print(f"  of {len(later)} that were told to look later, {sum(results)} have their result")
    print(f"  stored requests: {json.dumps(stack.work_deliveries())}", flush=True)


async def faults(stack: RequestReplyStack) -> None:
    """Kill what handles requests, and what holds their callers, while forty of them wait."""
    killed: list[str] = []

    async def kill() -> None:
        await asyncio.sleep(1)
        killed.append(f"{await asyncio.to_thread(stack.kill_flow_runs)} flow runs")
        await asyncio.sleep(4)
        await asyncio.to_thread(stack.kill, "gateway")
        killed.append("the gateway")
        await asyncio.to_thread(stack.start, "gateway")

    async with httpx.AsyncClient(
        base_url=stack.places.gateway_url, timeout=_DEADLINE_S + 30
    ) as client:
        asked = Counter[int]()

        async def call(number: int) -> None:
            for turn in range(_FAULT_REQUESTS):
                answer = await until_answered(client, f"fault-{number}-{turn}", [number, turn])
                asked[answer.status_code] += 1
                if answer.status_code == 202:
                    assert await fetch(client, answer.headers["location"])
                else:
                    assert answer.json() == [number, turn]

        await client.post("/work", json=[])  # a run is at work
        before = sum(stack.work_deliveries().values())
        await asyncio.gather(kill(), *(call(number) for number in range(_FAULT_CALLERS)))
        stored = sum(stack.work_deliveries().values()) - before
    print(
        f"\n{_FAULT_CALLERS} callers with keys, {_FAULT_REQUESTS} requests each; killed: ", end=""
    )
    print(f"{', '.join(killed)}")
    print(f"  answers: {dict(sorted(asked.items()))}, every one right; {stored} stored", flush=True)


async def until_answered(client: httpx.AsyncClient, key: str, body: list[int]) -> httpx.Response:
    """What a careful caller does: ask again with the same key when the connection breaks."""
    while True:
        try:
            answer = await client.post("/work", json=body, headers={"Idempotency-Key": key})
        except httpx.TransportError:
            await asyncio.sleep(0.5)
            continue
        if answer.status_code != 503:
            return answer
        await asyncio.sleep(float(answer.headers["retry-after"]))


async def fetch(client: httpx.AsyncClient, location: str) -> bool:
    """Whether the result is there in the end."""
    for _ in range(20):
        try:
            answer = await client.get(location, headers={"Prefer": "wait=25"})
        except httpx.TransportError:  # the gateway was killed
            await asyncio.sleep(0.5)
            continue
        if answer.json()["state"] == "done":
            return True
    return False


if __name__ == "__main__":
    main()
