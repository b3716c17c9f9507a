"""The peers: Node-RED's http-in and n8n's webhook node, installed outside the repository.

Both answer at once and verify nothing; Node-RED stores nothing, n8n stores each execution in
its default database.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.cookiejar import CookieJar
from itertools import pairwise
from pathlib import Path
from subprocess import Popen
from typing import Any

from benchmarks.harness.processes import process

FOLDER = Path(tempfile.gettempdir()) / "benchmark-peers"
PATHS = {"node-red": "/webhooks/github", "n8n": "/webhook/github"}
_PACKAGES: dict[str, dict[str, Any]] = {
    "node-red": {"dependencies": {"node-red": "^4"}},
    # Its xlsx points outside the npm registry; its newest isolated-vm does not build on Node 20.
    "n8n": {
        "dependencies": {"n8n": "^1"},
        "overrides": {"xlsx": "0.18.5", "isolated-vm": "^5"},
    },
}
_START_TIMEOUT_S = 180


def install(name: str, folder: Path) -> Path:
    """Install a peer unless it is there already; returns its folder."""
    home = folder / name
    program = home / "node_modules" / ".bin" / name
    if not program.exists():
        if shutil.which("npm") is None:
            raise SystemExit("npm is missing: the peers need Node 20")
        home.mkdir(parents=True, exist_ok=True)
        (home / "package.json").write_text(json.dumps({"private": True, **_PACKAGES[name]}))
        command = ["npm", "install", "--no-audit", "--no-fund", "--loglevel=error"]
        subprocess.run(command, cwd=home, check=True)
    return home


@contextmanager
def node_red(home: Path, folder: Path, port: int) -> Iterator[Popen[bytes]]:
    """Node-RED with a flow of an http-in and an http-response node."""
    flow = [
        {"id": "tab", "type": "tab", "label": "ingest"},
        {
            "id": "in",
            "type": "http in",
            "z": "tab",
            "url": PATHS["node-red"],
            "method": "post",
            "wires": [["out"]],
        },
        {"id": "out", "type": "http response", "z": "tab", "statusCode": "202", "wires": []},
    ]
    data = folder / "node-red"
    data.mkdir(exist_ok=True)
    (data / "flows.json").write_text(json.dumps(flow))
    (data / "settings.js").write_text(
        "module.exports = {uiHost: '127.0.0.1', flowFile: 'flows.json', "
        "logging: {console: {level: 'warn'}}, telemetry: {enabled: false}};"
    )
    program = home / "node_modules" / ".bin" / "node-red"
    command = [str(program), "--userDir", str(data), "--port", str(port)]
    url = f"http://127.0.0.1:{port}/"
    log = folder / "node-red.log"
    with process(command, log=log, environment={}, url=url, timeout_s=_START_TIMEOUT_S) as server:
        _wait_for_post(f"http://127.0.0.1:{port}{PATHS['node-red']}")
        yield server


@contextmanager
def n8n(
    home: Path, folder: Path, port: int, *, nodes: Sequence[dict[str, Any]] = ()
) -> Iterator[Popen[bytes]]:
    """n8n with an active workflow: a webhook node that responds immediately, then these nodes."""
    environment = {
        "N8N_USER_FOLDER": str(folder / "n8n"),
        "N8N_PORT": str(port),
        "N8N_LISTEN_ADDRESS": "127.0.0.1",
        "N8N_SECURE_COOKIE": "false",
        "N8N_DIAGNOSTICS_ENABLED": "false",
        "N8N_VERSION_NOTIFICATIONS_ENABLED": "false",
        "N8N_TEMPLATES_ENABLED": "false",
        "N8N_RUNNERS_ENABLED": "true",
        "N8N_LOG_LEVEL": "warn",
    }
    (folder / "n8n").mkdir(exist_ok=True)
    command = [str(home / "node_modules" / ".bin" / "n8n"), "start"]
    base = f"http://127.0.0.1:{port}"
    with process(
        command,
        log=folder / "n8n.log",
        environment=environment,
        url=f"{base}/healthz/readiness",
        timeout_s=_START_TIMEOUT_S,
    ) as server:
        _wait_for_rest(base)
        _activate_workflow(base, nodes)
        _wait_for_post(f"{base}{PATHS['n8n']}")
        yield server


def _activate_workflow(base: str, nodes: Sequence[dict[str, Any]]) -> None:
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
        "parameters": {"httpMethod": "POST", "path": "github", "responseMode": "onReceived"},
    }
    chain = [webhook, *nodes]
    workflow = {
        "name": "benchmark",
        "nodes": chain,
        "connections": {
            before["name"]: {"main": [[{"node": after["name"], "type": "main", "index": 0}]]}
            for before, after in pairwise(chain)
        },
        "settings": {},
    }
    made = call("POST", "/workflows", {**workflow, "active": False})
    call("PATCH", f"/workflows/{made['id']}", {"active": True, "versionId": made["versionId"]})


def _wait_for_rest(base: str) -> None:
    # While it starts n8n answers everything with 200 and a page that says it is busy.
    deadline = time.monotonic() + _START_TIMEOUT_S
    while True:
        try:
            with urllib.request.urlopen(f"{base}/rest/settings", timeout=5) as response:
                json.load(response)
        except (OSError, ValueError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
        else:
            return


def _wait_for_post(url: str) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while True:
        request = urllib.request.Request(
            url, data=b"{}", headers={"Content-Type": "application/json"}
        )
        try:
            urllib.request.urlopen(request, timeout=5).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
        else:
            return
