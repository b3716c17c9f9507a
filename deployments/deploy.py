"""Brings everything in `prefect.yaml` to a Prefect server: block types, work pool, deployments.

    PREFECT_API_URL=https://prefect.example/api python -m deployments.deploy [--blocks FILE …]

Safe to repeat; what is already as declared stays as it is.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from blocks.errors import MisconfiguredError
from deployments.register_blocks import read_documents, register_types, save_blocks
from deployments.work_pool import WORK_POOL, ensure_work_pool

PROJECT = Path(__file__).parents[1]


def deploy_all() -> None:
    """Register the block types, make the work pool, and deploy each entry of `prefect.yaml`.

    Raises:
        MisconfiguredError: Prefect refused; the message has its last words.
    """
    register_types()
    ensure_work_pool(WORK_POOL)
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)  # noqa: S603
    # `prefect deploy --all` goes on after a failing entry and still ends with status 0
    if done.returncode != 0 or "Error" in done.stdout + done.stderr:
        raise MisconfiguredError(
            "\n".join((done.stdout + done.stderr).strip().splitlines()[-20:]),
            system="Prefect",
            operation="deploy",
        )


def main() -> None:
    """Deploy; the block documents of the files named come first."""
    import os

    parser = argparse.ArgumentParser(prog="python -m deployments.deploy", description=__doc__)
    parser.add_argument("--blocks", nargs="*", type=Path, default=[], help="YAML: type/name → …")
    arguments = parser.parse_args()
    try:
        for file in arguments.blocks:
            save_blocks(read_documents(file, os.environ))
        deploy_all()
    except MisconfiguredError as exc:
        sys.exit(str(exc))
    print("deployed; start runs with: python -m deployments.launcher --pool", WORK_POOL)
    print("register endpoints at third parties with: python -m deployments.activate --all")


if __name__ == "__main__":
    main()
