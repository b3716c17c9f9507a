"""The gateway as a process of its own: on a socket, killed, stopped, misconfigured."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from deployments.services.gateway.__main__ import main
from deployments.services.gateway.bounded_http import MAX_HEAD_BYTES

SECRET = "It's a Secret to Everybody"
POST = "POST /github HTTP/1.1\r\nHost: x\r\n"
DECLARED = """
integration: shop
endpoints:
  github:
    path: /github
    scheme: github
    secrets: {env: SECRET}
    max_body_bytes: 1000
"""


@dataclass
class Running:
    """A gateway process."""

    process: subprocess.Popen[bytes]
    port: int
    folder: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stored(self) -> list[bytes]:
        """The bodies on disk."""
        with sqlite3.connect(self.folder / "state.db") as database:
            return [body for (body,) in database.execute("SELECT body FROM inbox_requests")]

    def log(self) -> list[dict]:
        lines = (self.folder / "access.log").read_text().splitlines()
        return [json.loads(line) for line in lines]


def environment(folder: Path) -> dict[str, str]:
    (folder / "integration.yaml").write_text(DECLARED)
    return {
        **os.environ,
        "INTEGRATIONS_ENDPOINTS": str(folder),
        "INTEGRATIONS_DATABASE_URL": f"sqlite:///{folder / 'state.db'}",
        "PREFECT_API_URL": "http://127.0.0.1:9/api",
        "SECRET": SECRET,
    }


@pytest.fixture
def running(
    request: pytest.FixtureRequest, tmp_path: Path, empty_database: Path
) -> Iterator[Running]:
    """A gateway on a free port, with the options that the test gives."""
    options = getattr(request, "param", [])
    (tmp_path / "state.db").write_bytes(empty_database.read_bytes())
    said = tmp_path / "said.log"
    with (tmp_path / "access.log").open("wb") as log, said.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "deployments.gateway", "--port", "0", *options],
            env=environment(tmp_path),
            stdout=log,
            stderr=errors,
        )
    try:
        while not (found := re.search(r"listens on http://127\.0\.0\.1:(\d+)", said.read_text())):
            assert process.poll() is None, said.read_text()
            time.sleep(0.02)
        yield Running(process, int(found[1]), tmp_path)
    finally:
        process.kill()
        process.wait()


def test_a_connection_is_kept_through_every_kind_of_answer(running, sign):
    """Many deliveries, duplicates and refusals go over one connection; nothing mixes them up."""
    with socket.create_connection(("127.0.0.1", running.port)) as connection:
        answers = connection.makefile("rb")
        for number in range(20):
            body = b'{"n":%d}' % (number // 2)
            headers = sign(body, secret=SECRET if number % 3 else "wrong")
            headers["Content-Length"] = str(len(body))
            lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            connection.sendall(f"{POST}{lines}\r\n".encode() + body)
            status = int(answers.readline().split()[1])
            length = 0
            while (line := answers.readline().lower()) != b"\r\n":
                if line.startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            answers.read(length)
            assert status == (202 if number % 3 else 401)
    assert sorted(running.stored()) == [b'{"n":%d}' % n for n in range(10)]


POST_BYTES = POST.encode()
GARBAGE = [
    b"\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    b"GET\r\n\r\n",
    b"POST /github HTTP/9.9\r\n\r\n",
    b"POST \xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /%ff%00 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
    b"POST http://[ HTTP/1.1\r\nHost: x\r\n\r\n",
    b"CONNECT a:1 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    POST_BYTES + b"Content-Length: -1\r\n\r\n",
    POST_BYTES + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    POST_BYTES + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    POST_BYTES + b"X-Hub-Signature-256: sha256=\xff\r\nContent-Length: 0\r\n\r\n",
    POST_BYTES + b"Upgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 0\r\n\r\n",
    POST_BYTES + b"Expect: 100-continue\r\nContent-Length: 99999\r\n\r\n",
    POST_BYTES + b"X: " + b"a" * 100_000 + b"\r\n\r\n",
    POST_BYTES + b"Content-Length: 50\r\n\r\nshort",
]


REFUSALS = {b"400", b"401", b"404", b"405", b"413", b"431"}


def test_garbage_on_the_socket_never_causes_a_500(running):
    """Broken HTTP is refused or dropped, and the next caller is served."""
    for garbage in GARBAGE:
        with socket.create_connection(("127.0.0.1", running.port), timeout=10) as connection:
            connection.sendall(garbage)
            connection.shutdown(socket.SHUT_WR)
            answer = connection.recv(65536)
        status = answer.split(b" ", 2)[1:2]
        assert not status or status[0] in REFUSALS, garbage[:60]
        assert httpx.get(f"{running.url}/healthz").status_code == 200


SMALL = b"X: y\r\n" * 20_000
WHOLE = POST_BYTES + SMALL[:-2] + b"\r\nContent-Length: 0\r\n\r\n"
CHUNK = POST_BYTES + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\n"
FIRST_TOO_MANY = MAX_HEAD_BYTES + 1
BESIDE_THE_BODY = [
    (POST_BYTES + SMALL[:60_000] + b"Content-Length: 0\r\n\r\n", b"401"),
    (WHOLE, b"431"),
    ((POST_BYTES + SMALL)[:FIRST_TOO_MANY], b"431"),
    ((POST_BYTES + b"X: " + b"y" * 100_000)[:FIRST_TOO_MANY], b"431"),
    ((b"POST /" + b"y" * 100_000)[:FIRST_TOO_MANY], b"431"),
    (CHUNK + SMALL * 10, None),
    (CHUNK + b"X: " + b"y" * 1_000_000, None),
]


def test_what_a_request_holds_beside_its_body_is_limited(running):
    """A large head is refused, also one without an end; a trailer without an end is dropped."""
    for sent, status in BESIDE_THE_BODY:
        with socket.create_connection(("127.0.0.1", running.port), timeout=10) as connection:
            try:
                connection.sendall(sent)
                answer = connection.recv(65536)
            except ConnectionError:  # closed before all was sent
                answer = b""
        assert answer.split(b" ", 2)[1:2] == ([] if status is None else [status]), sent[:100]
    running.process.terminate()
    running.process.wait(30)
    outcomes = [line["outcome"] for line in running.log()]
    assert outcomes == ["unauthentic", "too large", *["caller left"] * 2]
    assert running.stored() == []


def test_a_body_that_is_too_large_is_answered_while_it_is_sent(running):
    """A sender of 50 MB hears 413 and not a broken connection."""
    answer = httpx.post(f"{running.url}/github", content=bytes(50_000_000), timeout=30)
    assert answer.status_code == 413


@pytest.mark.parametrize("running", [["--metrics-port", "0"]], indirect=True)
def test_metrics_can_have_a_port_of_their_own(running, sign):
    """Then health, readiness and metrics are served there and not beside the endpoints."""
    said = (running.folder / "said.log").read_text()
    [private] = re.findall(r"health and metrics on (http://127\.0\.0\.1:\d+)", said)
    body = b'{"n":1}'
    assert httpx.post(f"{running.url}/github", content=body, headers=sign(body)).status_code == 202
    for path in ("/healthz", "/readyz", "/metrics"):
        assert httpx.get(private + path).status_code == 200
        assert httpx.get(running.url + path).status_code == 404
    assert httpx.post(f"{private}/github", content=body, headers=sign(body)).status_code == 404
    assert "gateway_deliveries_total" in httpx.get(f"{private}/metrics").text


async def _accepted_until_killed(running: Running, sign, kill_after: int) -> set[bytes]:
    """Deliver over many connections, kill the gateway in the middle; what was accepted."""
    accepted: set[bytes] = set()

    async def deliver(client: httpx.AsyncClient, worker: int) -> None:
        for number in range(1000):
            body = b'{"worker":%d,"n":%d}' % (worker, number)
            try:
                answer = await client.post("/github", content=body, headers=sign(body))
            except httpx.HTTPError:
                return
            assert answer.status_code == 202
            accepted.add(body)
            if len(accepted) == kill_after:
                running.process.send_signal(signal.SIGKILL)

    async with httpx.AsyncClient(base_url=running.url, timeout=10) as client:
        await asyncio.gather(*(deliver(client, worker) for worker in range(8)))
    return accepted


@pytest.mark.parametrize("kill_after", [1, 40, 150])
async def test_what_was_accepted_survives_a_kill(running, sign, kill_after):
    """After kill -9 under load every delivery that was answered 202 is on disk, whole."""
    accepted = await _accepted_until_killed(running, sign, kill_after)
    running.process.wait()
    assert len(accepted) >= kill_after
    assert accepted <= set(running.stored())


async def test_a_stop_finishes_what_was_begun(running, sign):
    """On SIGTERM a request that is under way is still accepted, and the log is written."""
    body = b'{"n":1}'
    arrived = asyncio.Event()

    async def slow():
        yield body[:3]
        arrived.set()
        while running.process.poll() is None:
            # Stopping is seen by the port being closed to others.
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", running.port)) != 0:
                    break
            await asyncio.sleep(0.02)
        yield body[3:]

    async with httpx.AsyncClient(timeout=20) as client:
        delivery = asyncio.create_task(
            client.post(f"{running.url}/github", content=slow(), headers=sign(body))
        )
        await arrived.wait()
        running.process.send_signal(signal.SIGTERM)
        assert (await delivery).status_code == 202
    # uvicorn finishes and then dies of the signal, as supervisors expect.
    assert await asyncio.to_thread(running.process.wait, 20) == -signal.SIGTERM
    assert running.stored() == [body]
    assert running.log()[-1]["outcome"] == "accepted"


@pytest.fixture
def run(tmp_path, monkeypatch) -> Callable[..., int]:
    """The command in this process; its exit code."""
    for name, value in environment(tmp_path).items():
        monkeypatch.setenv(name, value)

    def run_command(*arguments: str, **variables: str) -> int:
        with monkeypatch.context() as changed:
            for name, value in variables.items():
                changed.setenv(name, value)
            return main(arguments)

    return run_command


def test_declarations_can_be_checked_without_serving(run, caplog):
    """--check tells each endpoint and fails when one is not set up."""
    assert run("--check") == 0
    assert run("--check", SECRET="") == 1
    assert "github answers 503: there is no secret; set SECRET" in caplog.text


@pytest.mark.parametrize(
    ("says", "variables"),
    [
        ("lists no addresses", {"INTEGRATIONS_TRUSTED_PROXIES": "10.0.0.300"}),
        ("must begin with https://", {"INTEGRATIONS_PUBLIC_URL": "hooks.example"}),
        ("does not exist", {"INTEGRATIONS_ENDPOINTS": "/nowhere"}),
        ("not a database URL", {"INTEGRATIONS_DATABASE_URL": "nonsense"}),
    ],
)
def test_mistakes_end_the_start_with_a_sentence(run, capsys, says, variables):
    """A wrong proxy list, URL, folder or database is told in a sentence."""
    assert run(**variables) == 1
    assert says in capsys.readouterr().err


def test_a_taken_port_is_told(run, capsys):
    """The address stands in the sentence."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert run("--port", str(taken.getsockname()[1])) == 1
    assert "cannot listen on 127.0.0.1" in capsys.readouterr().err


def test_the_accept_path_imports_no_prefect_and_no_flow():
    """Importing the whole gateway leaves Prefect and the flows out of the process."""
    program = (
        "import sys, deployments.services.gateway.__main__\n"
        "print([name for name in sys.modules if name.partition('.')[0] in ('prefect', 'flows')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
