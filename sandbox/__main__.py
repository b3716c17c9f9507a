"""Runs all stand-ins in one process: `python -m sandbox --data DIR`.

Writes `DIR/blocks.yaml`, the block documents for flows, once all of them respond.
Then partners drop files, at once and every few minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import signal
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import yaml
from prefect.blocks.core import Block
from pydantic import SecretStr

from blocks.errors import IntegrationError
from blocks.http_api import ApiKeyAuth, HttpApi
from blocks.local_folder import LocalFolder
from sandbox.scenarios import Sandbox, running_parts
from sandbox.send_sample import read_sample, send_sample
from sandbox.systems import dropbox_api, s3_server, sftp_server
from sandbox.systems.own_app.serving import running_own_app
from sandbox.systems.partners import drop_files
from tasks.folders import open_folder

_API_KEY = "sandbox-own-app-key"
_BUCKET = "marketplace"
_GOOD_EVENTS = ("inventory_update", "push", "issues", "pull_request", "order-placed")
_BAD_EVENT = "inventory_update_unknown_item"  # is dead-lettered, to be looked at in the UI
_BAD_EVERY = 3  # times
_STOCK = {"widgets": 1_000, "gadgets": 100_000}  # what the events are about
# the block of the place where each partner drops files
_PLACES = {
    "sftp": "sftp-server/warehouse",
    "s3": "s3-bucket-of-files/marketplace",
    "dropbox": "dropbox-account/supplier",
    "local": "local-folder/office",
}


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    arguments = _arguments()
    data: Path = arguments.data.resolve()
    data.mkdir(parents=True, exist_ok=True)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    with ExitStack() as running:
        sandbox = _start(running, arguments, data)
        running.enter_context(running_parts(sandbox))
        documents = {slug: _document(block) for slug, block in sandbox.blocks.items()}
        unfinished = data / "blocks.yaml.part"
        unfinished.write_text(yaml.safe_dump(documents, sort_keys=False))
        unfinished.replace(data / "blocks.yaml")
        _let_partners_drop(sandbox.blocks)
        if arguments.gateway:
            _wait_until_there(arguments.gateway, stopping)
        running.enter_context(sandbox.living(stopping))
        for count in itertools.count(1):
            if stopping.is_set():
                break
            if arguments.gateway:
                is_bad = count % _BAD_EVERY == 0
                events = (*_GOOD_EVENTS, *[_BAD_EVENT] * is_bad)
                _let_partners_send(arguments.gateway, events, stopping)
            if not stopping.wait(arguments.drop_every_s):
                _let_partners_drop(sandbox.blocks)


def _start(running: ExitStack, arguments: argparse.Namespace, data: Path) -> Sandbox:
    sftp = running.enter_context(sftp_server.start(data / "sftp", port=arguments.sftp_port))
    s3 = running.enter_context(s3_server.start(port=arguments.s3_port, buckets=[_BUCKET]))
    dropbox = running.enter_context(
        dropbox_api.start(data / "dropbox", port=arguments.dropbox_port)
    )
    own_app = running.enter_context(
        running_own_app(data / "own-app.db", api_key=_API_KEY, port=arguments.own_app_port)
    )
    for sku, quantity in _STOCK.items():
        item = f"/api/v1/inventory/{sku}"
        if own_app.http.get(item).status_code == 404:
            own_app.http.put(item, json={"sku": sku, "name": sku.title(), "quantity": quantity})
    office = data / "local"
    for folder in (
        sftp.files / "incoming",
        dropbox.files / "incoming",
        office / "contacts",
        office / "counts",
    ):
        folder.mkdir(parents=True, exist_ok=True)
    blocks: dict[str, Block] = {
        "http-api/own-app": HttpApi(
            base_url=f"{own_app.base_url}/api/v1", auth=ApiKeyAuth(key=SecretStr(_API_KEY))
        ),
        "sftp-server/warehouse": sftp.block(),
        "s3-bucket-of-files/marketplace": s3.block(_BUCKET),
        "dropbox-account/supplier": dropbox.block(),
        "local-folder/office": LocalFolder(path=office),
    }
    return Sandbox(data, arguments.gateway, own_app.base_url, blocks)


def _document(block: Block) -> dict[str, Any]:
    """Return a block's fields in the form for `deployments.register_blocks`."""
    fields = block.model_dump(
        mode="json", context={"include_secrets": True}, exclude={"block_type_slug"}
    )
    return {name: value for name, value in fields.items() if value is not None}


def _let_partners_drop(blocks: dict[str, Block]) -> None:
    try:
        with ExitStack() as opened:
            folders = {
                place: opened.enter_context(open_folder(blocks[slug]))
                for place, slug in _PLACES.items()
            }
            for dropped in drop_files(folders):
                print("a partner dropped", dropped, flush=True)
    except IntegrationError as exc:
        print("a partner could not drop:", exc, flush=True)


def _wait_until_there(gateway_url: str, stopping: threading.Event) -> None:
    """Wait for the gateway, which starts after the sandbox."""
    for _ in range(300):
        with contextlib.suppress(httpx.TransportError):
            httpx.get(f"{gateway_url}/healthz", timeout=2)
            return
        if stopping.wait(0.2):
            return


def _let_partners_send(gateway_url: str, events: Sequence[str], stopping: threading.Event) -> None:
    for event in events:
        if stopping.is_set():
            return
        try:
            status = send_sample(gateway_url, read_sample(event)).status_code
            print(f"a partner sent {event}: {status}", flush=True)
        except (httpx.HTTPError, IntegrationError) as exc:
            print(f"a partner could not send {event}: {exc}", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m sandbox", description="Stand-ins of the outside systems."
    )
    parser.add_argument("--data", type=Path, required=True, help="where they keep their data")
    for name in ("own-app", "sftp", "s3", "dropbox"):
        parser.add_argument(f"--{name}-port", type=int, default=0, help="0 for a free one")
    parser.add_argument("--gateway", help="where partners send their webhooks")
    parser.add_argument("--drop-every-s", type=float, default=120)
    return parser.parse_args()


if __name__ == "__main__":
    main()
