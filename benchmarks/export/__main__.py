"""From own app's event to the other system, beside a bare loop: `python -m benchmarks.export`.

    python -m benchmarks.export [--events 5000] [--cold 7] [--write-back]

Everything runs on this machine: own app with its webhooks, gateway, inbox, Prefect server on
SQLite, launcher, and the other system. The rules are the project's own deployment's. Latency is
measured from own app's answer to a change until the other system has the request: with nothing
running ("idle"), and with a run at work ("steady"). Then many orders change at once.

The bare loop sends the same bodies to the same server over one connection, with an idempotency key
and the same retry rules, and nothing else: no webhook, no signature, no inbox, no schema, no look
at whether the event is outdated, no record of what became of it.
"""

from __future__ import annotations

import argparse
import secrets
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import yaml

from benchmarks.harness.figures import show, show_latencies, show_ratios
from benchmarks.harness.stack import Stack, running_stack
from deployments.prefect_file import read_deployments
from sandbox.send_sample import endpoint_of
from sandbox.systems import fulfilment_api
from sandbox.systems.fulfilment_api import FulfilmentSandbox
from tasks.core.connectors.http.retrying import RetryPolicy

_BATCH = 500
_RETRIED = {408, 429, 500, 502, 503, 504}


def main() -> None:
    options = _parser().parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="export-") as name,
        fulfilment_api.start() as fulfilment,
        running_stack(
            Path(name),
            prefect_file=_prefect_file(Path(name), write_back=options.write_back),
            connections={"http-api/fulfilment": _document(fulfilment)},
        ) as stack,
    ):
        _subscribe(stack)
        latency(stack, fulfilment, cold=options.cold, steady=options.steady)
        ours = sustained(stack, fulfilment, options.events)
        bare = bare_loop(fulfilment, options.events)
    show_ratios({"this project": ours, "bare httpx loop": bare}, "deliveries/s")


def latency(stack: Stack, fulfilment: FulfilmentSandbox, *, cold: int, steady: int) -> None:
    """Print the medians from own app's answer to the other system's request."""
    times = []
    for number in range(cold):
        stack.wait_for_quiet()
        times.append(_event_to_request_s(stack, fulfilment, f"IDLE-{number}"))
    show_latencies("idle", times)
    times = []
    for number in range(steady):
        times.append(_event_to_request_s(stack, fulfilment, f"STEADY-{number}"))
        time.sleep(max(0.0, 1 - times[-1]))
    show_latencies("steady", times)


def sustained(stack: Stack, fulfilment: FulfilmentSandbox, count: int) -> float:
    """Deliveries a second, from the first change to the last request; each exactly once."""
    before = len(fulfilment.effects)
    started, processor_before_s = time.monotonic(), stack.processor_s()
    for start in range(0, count, _BATCH):
        orders = [_order(f"MANY-{number}") for number in range(start, min(start + _BATCH, count))]
        stack.own_app.http.post(
            "/api/v1/orders/batch",
            json={"records": orders},
            headers={"Idempotency-Key": secrets.token_hex(8)},
        ).raise_for_status()
    changed_s = time.monotonic() - started
    stack.wait_until(
        lambda: len(fulfilment.effects) >= before + count, "not all were exported", 1200
    )
    took_s = time.monotonic() - started
    processor_s = stack.processor_s() - processor_before_s
    stack.wait_until(lambda: stack.statuses().get("received", 0) == 0, "deliveries wait", 300)
    references = [effect.path for effect in fulfilment.effects[before:]]
    assert len(references) == len(set(references)) == count
    show(
        "sustained",
        {
            "events": count,
            "changed in s": round(changed_s, 1),
            "last request after s": round(took_s, 1),
            "deliveries/s": round(count / took_s, 1),
            "processor ms a delivery, all parts": round(processor_s / count * 1000, 1),
        },
    )
    show("inbox", stack.statuses())
    show("task runs", stack.task_runs())
    show("flow runs", stack.flow_runs())
    return count / took_s


def bare_loop(fulfilment: FulfilmentSandbox, count: int) -> float:
    """Requests a second of a loop that does nothing else."""
    policy = RetryPolicy()
    block = fulfilment.block()
    before = len(fulfilment.effects)
    started = time.monotonic()
    with httpx.Client(base_url=block.base_url, auth=block._sign) as http:
        for number in range(count):
            order = _order(f"BARE-{number}")
            body = {
                "recipient": order["customer"],
                "value": order["total"],
                "currency": order["currency"],
                "parcels": [
                    {"sku": line["sku"], "pieces": line["quantity"]} for line in order["lines"]
                ],
            }
            _put(http, policy, f"shipments/{order['order_no']}", body)
    took_s = time.monotonic() - started
    assert len(fulfilment.effects) == before + count
    return count / took_s


def _put(http: httpx.Client, policy: RetryPolicy, path: str, body: Any) -> None:
    key = secrets.token_hex(16)
    for attempt in range(1, policy.max_attempts + 1):
        wait_s = min(policy.first_wait_s * 2 ** (attempt - 1), policy.max_wait_s)
        try:
            response = http.put(path, json=body, headers={"Idempotency-Key": key})
        except httpx.TransportError:
            if attempt == policy.max_attempts:
                raise
        else:
            if response.status_code not in _RETRIED:
                response.raise_for_status()
                return
            wait_s = float(response.headers.get("Retry-After", wait_s))
        time.sleep(wait_s)
    raise SystemExit(f"{path} was not taken")


def _event_to_request_s(stack: Stack, fulfilment: FulfilmentSandbox, order_no: str) -> float:
    order = _order(order_no)
    stack.own_app.http.put(f"/api/v1/orders/{order_no}", json=order).raise_for_status()
    answered = time.monotonic()
    while order_no not in fulfilment.shipments:
        if time.monotonic() > answered + 120:
            raise SystemExit(f"{order_no} was not exported; see {stack.folder}")
        time.sleep(0.002)
    return time.monotonic() - answered


def _subscribe(stack: Stack) -> None:
    endpoint = endpoint_of("order_events_export")
    stack.own_app.http.post(
        "/api/v1/webhooks",
        json={
            "url": f"{stack.places.gateway_url}{endpoint.path}",
            "events": list(endpoint.events or ()),
            "secret": stack.environment["ORDER_EVENTS_EXPORT_SECRET"],
        },
    ).raise_for_status()


def _prefect_file(folder: Path, *, write_back: bool) -> Path:
    """The project's own deployment, with short waits; and the sweeper."""
    declared = read_deployments()
    [deployment] = [each for each in declared if each["name"] == "order-events-export"]
    deployment["parameters"]["consumer"] = {"idle_timeout_s": 5}
    for rule in deployment["parameters"]["rules"]:
        if not write_back:
            rule.pop("write_back", None)
    [sweeper] = [each for each in declared if each["name"] == "sweep-inbox"]
    path = folder / "prefect.yaml"
    path.write_text(
        yaml.safe_dump(
            {"name": "export-benchmark", "pull": [], "deployments": [deployment, sweeper]},
            sort_keys=False,
        )
    )
    return path


def _document(fulfilment: FulfilmentSandbox) -> dict[str, Any]:
    block = fulfilment.block()
    document: dict[str, Any] = block.model_dump(
        mode="json", context={"include_secrets": True}, include={"base_url", "auth"}
    )
    return document


def _order(order_no: str) -> dict[str, Any]:
    return {
        "order_no": order_no,
        "customer": "Ines Álvarez",
        "ordered_at": datetime(2026, 3, 1, 9, 30, tzinfo=UTC).isoformat(),
        "status": "paid",
        "total": "24.00",
        "currency": "EUR",
        "lines": [{"sku": "000017", "quantity": 2, "unit_price": "12.00"}],
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.export")
    parser.add_argument("--events", type=int, default=5000)
    parser.add_argument("--cold", type=int, default=7, help="idle latencies to measure")
    parser.add_argument("--steady", type=int, default=20, help="steady latencies to measure")
    parser.add_argument(
        "--write-back",
        action="store_true",
        help="tell own app each answer, as the project's deployment does; doubles the events",
    )
    return parser


if __name__ == "__main__":
    main()
