"""The peers: stock Prefect with one flow run a webhook, and n8n with a two-node workflow."""

from __future__ import annotations

import json
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any

from benchmarks.drain.stack import running_stack, show
from benchmarks.ingest.peers import install
from benchmarks.ingest.servers import free_port, process
from deployments.sandbox.own_app.serving import RunningOwnApp, running_own_app

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
    base = f"http://127.0.0.1:{port}"
    environment = {
        "N8N_USER_FOLDER": str(folder),
        "N8N_PORT": str(port),
        "N8N_LISTEN_ADDRESS": "127.0.0.1",
        "N8N_SECURE_COOKIE": "false",
        "N8N_DIAGNOSTICS_ENABLED": "false",
        "N8N_VERSION_NOTIFICATIONS_ENABLED": "false",
        "N8N_TEMPLATES_ENABLED": "false",
        "N8N_RUNNERS_ENABLED": "true",
        "N8N_LOG_LEVEL": "warn",
    }
    command = [str(home / "node_modules" / ".bin" / "n8n"), "start"]
    with (
        running_own_app(folder / "own_app.db") as own_app,
        process(
            command,
            log=folder / "n8n.log",
            environment=environment,
            url=f"{base}/healthz/readiness",
            timeout_s=180,
        ),
    ):
        item = {"sku": "item-0", "name": "item-0", "quantity": 0}
        own_app.http.put("/api/v1/inventory/item-0", json=item).raise_for_status()
        _activate(base, own_app)
        _wait_for_stock(own_app, 1, lambda: _post(base))
        started = time.monotonic()
        with ThreadPoolExecutor(_SENDERS) as senders:
            accepted = 1 + sum(senders.map(lambda _: _post(base), range(count)))
        accepted_s = time.monotonic() - started
        _wait_for_stock(own_app, accepted)
        took_s = time.monotonic() - started
        show(
            "n8n",
            {
                "accepted": accepted - 1,
                "accepts/s": round((accepted - 1) / accepted_s),
                "last effect after s": round(took_s, 1),
            },
        )
        return (accepted - 1) / took_s


def _activate(base: str, own_app: RunningOwnApp) -> None:
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))

    def call(method: str, path: str, content: dict[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(
            f"{base}/rest{path}",
            data=json.dumps(content).encode(),
            headers={"Content-Type": "application/json", "browser-id": "benchmark"},
            method=method,
        )
        with opener.open(request, timeout=60) as response:
            answer: dict[str, Any] = json.load(response)["data"]
            return answer

    owner = {"email": "a@b.example", "firstName": "A", "lastName": "B", "password": "Benchmark1!"}
    call("POST", "/owner/setup", owner)
    webhook = {
        "id": "11111111-1111-4111-8111-111111111111",
        "name": "Webhook",
        "type": "n8n-nodes-base.webhook",
        "typeVersion": 2,
        "position": [0, 0],
        "webhookId": "22222222-2222-4222-8222-222222222222",
        "parameters": {"httpMethod": "POST", "path": "inventory", "responseMode": "onReceived"},
    }
    adjust = {
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
    workflow = {
        "name": "drain",
        "nodes": [webhook, adjust],
        "connections": {"Webhook": {"main": [[{"node": "Adjust", "type": "main", "index": 0}]]}},
        "settings": {},
    }
    made = call("POST", "/workflows", {**workflow, "active": False})
    call("PATCH", f"/workflows/{made['id']}", {"active": True, "versionId": made["versionId"]})


def _post(base: str) -> bool:
    update = {"item": "item-0", "action": "add", "quantity": 1}
    request = urllib.request.Request(
        f"{base}/webhook/inventory",
        data=json.dumps({"event": "INVENTORY_UPDATE", "updates": [update]}).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        urllib.request.urlopen(request, timeout=60).close()
    except OSError:
        return False
    return True


def _wait_for_stock(own_app: RunningOwnApp, quantity: int, nudge: Any = None) -> None:
    deadline = time.monotonic() + 600
    while own_app.http.get("/api/v1/inventory/item-0").json()["quantity"] < quantity:
        if time.monotonic() > deadline:
            raise SystemExit("n8n did not get everything done")
        if nudge is not None and nudge():
            nudge = None
        time.sleep(0.3)
