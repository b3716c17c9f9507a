"""Load: distinct signed GitHub deliveries of 1 KB, made before the clock starts."""

from __future__ import annotations

import hashlib
import hmac
import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

SECRET = "benchmark-secret"
CONNECTIONS = 64
_BODY_BYTES = 1024


@dataclass(frozen=True)
class Result:
    """What one run of wrk measured."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    refused: int
    broken: int

    @property
    def per_second(self) -> float:
        """Requests answered."""
        return self.requests / self.seconds


def write_requests(file: Path, count: int, *, port: int, path: str) -> int:
    """Write whole HTTP requests of one length each, all different; returns that length."""
    with file.open("wb") as out:
        for number in range(count):
            request = _request(number, port, path)
            out.write(request)
    return len(request)


def run(port: int, file: Path, size: int, count: int, *, seconds: int) -> Result:
    """Send for some seconds over 64 connections that are kept alive."""
    wrk = shutil.which("wrk")
    if wrk is None:
        raise SystemExit("wrk is missing: apt-get install wrk")
    script = Path(__file__).with_name("replay.lua")
    threads = 1  # leaves the other core to the server, as all measured servers have one
    command = [
        *(wrk, f"-t{threads}", f"-c{CONNECTIONS}", f"-d{seconds}s", "--timeout", "30s"),
        *("-s", str(script), f"http://127.0.0.1:{port}", "--"),
        *(str(file), str(size), str(count), str(threads)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return Result(**json.loads(done.stdout.strip().splitlines()[-1]))


def _request(number: int, port: int, path: str) -> bytes:
    repository = {"id": 1296269, "full_name": "octo/hello", "private": False}
    event = {"action": "opened", "number": f"{number:012d}", "repository": repository, "body": ""}
    event["body"] = "x" * (_BODY_BYTES - len(json.dumps(event)))
    body = json.dumps(event).encode()
    signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    head = (
        f"POST {path} HTTP/1.1\r\n"
        f"Host: 127.0.0.1:{port:05d}\r\n"
        "User-Agent: GitHub-Hookshot/benchmark\r\n"
        "Accept: */*\r\n"
        "Content-Type: application/json\r\n"
        f"X-GitHub-Delivery: 72d3162e-cc78-11e3-81ab-{number:012d}\r\n"
        "X-GitHub-Event: issues\r\n"
        f"X-Hub-Signature-256: sha256={signature}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
