"""The peers: stock Prefect with one flow run a webhook, and n8n with a two-node workflow."""

from __future__ import annotations

import json
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.harness.figures import show
from benchmarks.harness.peers import PATHS, install
from benchmarks.harness.peers import n8n as running_n8n
from benchmarks.harness.processes import free_port
from benchmarks.harness.stack import running_stack
from sandbox.systems.own_app.serving import RunningOwnApp, running_own_app

_STOCK = """
import sys, uuid
from prefect.deployments import run_deployment
for number in range(int(sys.argv[1])):
    update = {"item": "item-0", "action": "add", "quantity": 1}
    run_deployment(
        "inventory-updates/inventory-updates",
        parameters={"payload": {"event": "INVENTORY_UPDATE", "updates": [update]}},
        timeout=0,
    )
"""
_SENDERS = 16


def stock_prefect(folder: Path, runs: int) -> float:
    """Effects a second when each webhook starts a flow run on the stock process worker."""
    with running_stack(folder, worker=False) as stack:
        stack.make_items(1)
        stack.start("stock-worker")
        started = time.monotonic()
        stack.run([*stack.python, "-c", _STOCK, str(runs)])
        stack.wait_until(lambda: stack.effects() >= runs, "not all runs had effect", 1200)
        took_s = time.monotonic() - started
        show("stock Prefect", {"runs": runs, "last effect after s": round(took_s, 1)})
        return runs / took_s


def n8n(folder: Path, peers_folder: Path, count: int) -> float:
    """Effects a second of a workflow: webhook, answered at once, then a call to own app."""
    home = install("n8n", peers_folder)
    port = free_port()
    url = f"http://127.0.0.1:{port}{PATHS['n8n']}"
    with running_own_app(folder / "own_app.db") as own_app:
        item = {"sku": "item-0", "name": "item-0", "quantity": 0}
        own_app.http.put("/api/v1/inventory/item-0", json=item).raise_for_status()
        with running_n8n(home, folder, port, nodes=[_adjust_stock(own_app)]):
            _post(url)
            _wait_for_stock(own_app, 1)
            return _n8n_throughput(own_app, url, count)


def _n8n_throughput(own_app: RunningOwnApp, url: str, count: int) -> float:
    started = time.monotonic()
    with ThreadPoolExecutor(_SENDERS) as senders:
        accepted = sum(senders.map(lambda _: _post(url), range(count)))
    accepted_s = time.monotonic() - started
    _wait_for_stock(own_app, 1 + accepted)
    took_s = time.monotonic() - started
    show(
        "n8n",
        {
            "accepted": accepted,
            "accepts/s": round(accepted / accepted_s),
            "last effect after s": round(took_s, 1),
        },
    )
    return accepted / took_s


def _adjust_stock(own_app: RunningOwnApp) -> dict[str, Any]:
    """The node that calls own app."""
    return {
        "id": "33333333-3333-4333-8333-333333333333",
        "name": "Adjust",
        "type": "n8n-nodes-base.httpRequest",
        "typeVersion": 4.2,
        "position": [300, 0],
        "parameters": {
            "method": "POST",
            "url": f"={own_app.base_url}/api/v1/inventory/"
            "{{ $json.body.updates[0].item }}/adjustments",
            "sendHeaders": True,
            "headerParameters": {
                "parameters": [
                    {"name": "X-API-Key", "value": own_app.api_key},
                    {"name": "Idempotency-Key", "value": "={{ $execution.id }}-0"},
                ]
            },
            "sendBody": True,
            "specifyBody": "json",
            "jsonBody": '={"action": "{{ $json.body.updates[0].action }}", '
            '"quantity": {{ $json.body.updates[0].quantity }}}',
        },
    }


def _post(url: str) -> bool:
    update = {"item": "item-0", "action": "add", "quantity": 1}
    request = urllib.request.Request(
        url,
        data=json.dumps({"event": "INVENTORY_UPDATE", "updates": [update]}).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        urllib.request.urlopen(request, timeout=60).close()
    except OSError:
        return False
    return True


def _wait_for_stock(own_app: RunningOwnApp, quantity: int) -> None:
    deadline = time.monotonic() + 600
    while own_app.http.get("/api/v1/inventory/item-0").json()["quantity"] < quantity:
        if time.monotonic() > deadline:
            raise SystemExit("n8n did not get everything done")
        time.sleep(0.3)
