"""A launcher's parent without Prefect, whose flow runs are any Python code."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deployments.launcher.protocol import SOCKET_VARIABLE

Job = subprocess.Popen[str]


class Bench:
    """A project folder, a parent that serves it, and clients that run jobs there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "socket"
        self.environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(folder), str(Path(__file__).parents[3])]),
            "PYTHONDONTWRITEBYTECODE": "1",
            SOCKET_VARIABLE: str(self.socket),
        }
        self.processes: list[subprocess.Popen[str]] = []
        self.write("job_engine.py", "import os\nexec(os.environ['JOB'])\n")

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def start_parent(self, *preload: str) -> Job:
        command = [sys.executable, "-m", "deployments.launcher.parent", f"--socket={self.socket}"]
        parent = self.start(
            [*command, "--engine=job_engine", *(f"--preload={name}" for name in preload)],
            stderr=subprocess.PIPE,
        )
        self.wait_for_line(parent, "ready")
        return parent

    def wait_for_line(self, process: Job, text: str) -> list[str]:
        """Everything that the process says up to the line with the text."""
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if text in line:
                return said
        pytest.fail(f"it ended before it said {text!r}: {said}")

    def start_job(self, code: str, **options: Any) -> Job:
        environment = {**self.environment, "JOB": code, **options.pop("env", {})}
        return self.start(
            [options.pop("python", sys.executable), "-m", "deployments.launcher.client"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=options.pop("stderr", subprocess.PIPE),
            **options,
        )

    def run_job(self, code: str, **options: Any) -> str:
        """What a job that must succeed prints."""
        job = self.start_job(code, **options)
        out, err = job.communicate(timeout=60)
        assert job.returncode == 0, err
        return out

    def start(self, command: list[str], **options: Any) -> Job:
        options = {"env": self.environment, "cwd": self.folder, **options}
        process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, **options)
        self.processes.append(process)
        return process

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    with contextlib.suppress(BrokenPipeError):
                        stream.close()
            process.wait()


@pytest.fixture
def bench() -> Iterator[Bench]:
    # Not tmp_path: a socket's path is limited to about 100 bytes.
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    made = Bench(folder)
    yield made
    made.close()
    shutil.rmtree(folder)
