"""Import a large CSV over SFTP: the whole flow against a bare script, in one run.

    python -m benchmarks.file_import [--rows 1000000]

Both read from the same SFTP server (a process of its own), validate each row against the same
model and post batches of the same size to the same counting application (another process). The
bare script is what one would write by hand: paramiko, the csv module, pydantic, httpx. Printed are
rows a second, peak memory of the importing process and their ratio, and the flow's peak memory
with a tenth of the rows.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

_BATCH = 5000
_COLUMNS = ("sku", "name", "quantity", "warehouse", "unit_price", "currency", "note", "counted_at")


def main() -> None:
    """Run all cases and print them side by side."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--case", choices=["bare", "flow"])
    parser.add_argument("--serve", action="store_true")
    parser.add_argument("--work", type=Path)
    arguments = parser.parse_args()
    if arguments.serve:
        return serve(arguments.work)
    if arguments.case:
        result = {"bare": bare, "flow": flow}[arguments.case](arguments.work)
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return print(json.dumps(result | {"peak_mb": round(peak_mb)}))
    with tempfile.TemporaryDirectory() as name:
        compare(Path(name), arguments.rows)
    return None


def compare(work: Path, rows: int) -> None:
    """Bare, flow, and the flow with a tenth of the rows."""
    server = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.file_import", "--serve", "--work", work],
        stdin=subprocess.PIPE,
    )
    try:
        while not (work / "addresses.json").exists():
            time.sleep(0.1)
        incoming = work / "sftp" / "files" / "incoming"
        incoming.mkdir()
        results: dict[str, Any] = {}
        for case, count in (("bare", rows), ("flow", rows), ("flow", rows // 10)):
            write_rows(incoming / "stock.csv", count)
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.file_import", "--case", case, "--work", work],
                stdout=subprocess.PIPE, text=True, check=True,
            )  # fmt: skip
            result = json.loads(done.stdout.splitlines()[-1])
            assert result["rows"] == count, result
            rate = count / result["seconds"]
            results[f"{case} {count}"] = (rate, result["peak_mb"])
            print(f"{case:<5} {count:>9,} rows  {rate:>9,.0f} rows/s  peak {result['peak_mb']} MB")
        (bare_rate, _), (flow_rate, big), (_, small) = results.values()
        print(f"flow / bare: {flow_rate / bare_rate:.2f}× the rows per second")
        print(f"flow's peak memory, {rows:,} / {rows // 10:,} rows: {big / small:.2f}×")
    finally:
        assert server.stdin is not None
        server.stdin.close()
        server.wait()


def write_rows(path: Path, count: int) -> None:
    """A CSV of eight columns, about 80 bytes a row."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(_COLUMNS)
        for n in range(count):
            name, price = f"Item, {n} of many", f"{n % 500}.50"
            writer.writerow(
                (f"{n:08}", name, n % 900, "Köln", price, "EUR", "counted", "2026-03-01T12:00:00Z")
            )


def serve(work: Path) -> None:
    """The SFTP server and the counting application, until standard input ends."""
    import threading

    import uvicorn

    from sandbox.systems import sftp_server

    async def count(_scope: Any, receive: Any, send: Any) -> None:
        body = bytearray()
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        counted = body.count(b'"sku":')
        answer = json.dumps({"created": counted, "updated": 0, "unchanged": 0}).encode()
        head = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": answer})

    with sftp_server.start(work / "sftp") as sftp:
        config = uvicorn.Config(
            count, port=0, log_level="critical", lifespan="off", interface="asgi3"
        )
        server = uvicorn.Server(config)
        threading.Thread(target=server.run, daemon=True).start()
        while not server.started:
            time.sleep(0.05)
        port = server.servers[0].sockets[0].getsockname()[1]
        addresses = {
            "sftp": [sftp.host, sftp.port, sftp.username, sftp.password],
            "known_hosts": sftp.known_hosts,
            "application": f"http://127.0.0.1:{port}",
        }
        (work / "addresses.part").write_text(json.dumps(addresses))
        (work / "addresses.part").rename(work / "addresses.json")
        sys.stdin.read()


def bare(work: Path) -> dict[str, Any]:
    """What one writes by hand."""
    import io

    import httpx
    import paramiko
    from pydantic import TypeAdapter

    from tasks.core.sync.batches.application_records import InventoryItem

    addresses = json.loads((work / "addresses.json").read_text())
    host, port, username, password = addresses["sftp"]
    began = time.perf_counter()
    transport = paramiko.Transport((host, port))
    transport.connect(username=username, password=password)
    sftp = paramiko.SFTPClient.from_transport(transport)
    assert sftp is not None
    sent = 0
    serializer = TypeAdapter(list[InventoryItem])
    with tempfile.TemporaryFile() as local, httpx.Client() as http:
        sftp.getfo("incoming/stock.csv", local)
        local.seek(0)
        text = io.TextIOWrapper(local, encoding="utf-8", newline="")
        reader = csv.reader(text)
        header = next(reader)
        batch = []

        def send() -> int:
            body = b'{"records":' + serializer.dump_json(batch) + b"}"
            answer = http.post(f"{addresses['application']}/inventory/batch", content=body)
            return int(answer.raise_for_status().json()["created"])

        for row in reader:
            batch.append(InventoryItem.model_validate(dict(zip(header, row, strict=True))))
            if len(batch) == _BATCH:
                sent += send()
                batch = []
        if batch:
            sent += send()
    transport.close()
    return {"rows": sent, "seconds": time.perf_counter() - began}


def flow(work: Path) -> dict[str, Any]:
    """The project's flow on a Prefect server."""
    os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
    os.environ["PREFECT_LOGGING_LEVEL"] = "ERROR"
    os.environ["INTEGRATIONS_DATABASE_URL"] = f"sqlite:///{work / 'state.db'}"
    from prefect.testing.utilities import prefect_test_harness

    from blocks.http_api import HttpApi
    from blocks.sftp_server import SftpServer
    from flows.file_import.flow import file_import

    addresses = json.loads((work / "addresses.json").read_text())
    host, port, username, password = addresses["sftp"]
    with prefect_test_harness():
        SftpServer(
            host=host, port=port, username=username, password=password,
            known_hosts=addresses["known_hosts"],
        ).save("partner", overwrite=True)  # fmt: skip
        HttpApi(base_url=addresses["application"]).save("own-app", overwrite=True)
        began = time.perf_counter()
        state = asyncio.run(
            file_import(
                source="sftp-server/partner",
                record_type="inventory",
                batch_size=_BATCH,
                selection={"stable_for_s": 0},
                return_state=True,
            )
        )
        seconds = time.perf_counter() - began
    rows = int(state.message.partition("imported, ")[2].partition(" ")[0].replace(",", ""))
    return {"rows": rows, "seconds": seconds}


if __name__ == "__main__":
    main()
