"""Deploys block types, work pool and deployments of `prefect.yaml` to a Prefect server.

    PREFECT_API_URL=https://prefect.example/api python -m deployments.deploy
        [--integrations NAME …] [--blocks FILE …]

Safe to repeat: what already matches stays unchanged, and deployments that are no longer named stay
until somebody deletes them in Prefect.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from blocks.errors import IntegrationError, MisconfiguredError
from deployments.prefect_file import (
    PREFECT_FILE,
    PROJECT,
    completed,
    integration_of,
    own_declarations,
    read_deployments,
)
from deployments.prefect_server import require_server
from deployments.register_blocks import read_documents, register_types, save_blocks
from deployments.work_pool import WORK_POOL, ensure_work_pool
from tasks.core.former_names import PARAMETERS, in_present_names
from tasks.core.intake.inbox.consumer import ConsumerSettings

_PREFECT_DEPLOY = (sys.executable, "-m", "prefect", "--no-prompt", "deploy")


def deployments_of(integrations: Sequence[str]) -> list[str]:
    """Return the deployments of some integrations, and of those that operate all of them.

    Args:
        integrations: Names of packages below flows/, with dashes or underscores.

    Raises:
        MisconfiguredError: There is no such integration.
    """
    declared = {each.integration: each for each in own_declarations()}
    names = [name.replace("-", "_") for name in integrations]
    for name in names:
        if name not in declared:
            raise MisconfiguredError(
                f"there is no such integration; there are {', '.join(declared)}",
                system="Prefect",
                operation="deploy",
                record=name,
            )
    chosen = {name for name, each in declared.items() if each.always_deployed or name in names}
    return [each["name"] for each in read_deployments() if integration_of(each) in chosen]


def deploy(names: Sequence[str] | None = None) -> None:
    """Register the block types, create the work pool, and deploy entries of `prefect.yaml`.

    Args:
        names: Names of the entries; None for all.

    Raises:
        MisconfiguredError: Prefect refused; the message has the end of its output.
    """
    register_types()
    ensure_work_pool(WORK_POOL)
    which = ["--all"] if names is None else [f"--name={name}" for name in names]
    document = completed(yaml.safe_load(PREFECT_FILE.read_text()), own_declarations())
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(in_present_form(document), file, sort_keys=False)
        file.flush()
        command = [*_PREFECT_DEPLOY, f"--prefect-file={file.name}", *which]
        done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)  # noqa: S603
    # `prefect deploy` continues after a failing entry and still exits with status 0
    if done.returncode != 0 or "Error" in done.stdout + done.stderr:
        raise MisconfiguredError(
            "\n".join((done.stdout + done.stderr).strip().splitlines()[-20:]),
            system="Prefect",
            operation="deploy",
        )


def in_present_form(declared: dict[str, Any]) -> dict[str, Any]:
    """Return a `prefect.yaml`'s content with parameters under their present names."""
    deployments = [
        each | {"parameters": _present_parameters(each["parameters"])}
        if each.get("parameters")
        else each
        for each in declared["deployments"]
    ]
    return declared | {"deployments": deployments}


def _present_parameters(saved: dict[str, Any]) -> dict[str, Any]:
    parameters: dict[str, Any] = in_present_names(saved, PARAMETERS)
    if "consumer" not in parameters:
        return parameters
    consumer = ConsumerSettings.model_validate(parameters["consumer"])
    return parameters | {"consumer": consumer.model_dump(exclude_unset=True, mode="json")}


def main(arguments: Sequence[str] | None = None) -> int:
    """Save the named files' block documents, then deploy; return 0 if all went well."""
    options = _parser().parse_args(arguments)
    try:
        names = None if options.integrations is None else deployments_of(options.integrations)
        require_server()
        for file in options.blocks:
            save_blocks(read_documents(file, os.environ))
        deploy(names)
    except IntegrationError as error:
        print(error, file=sys.stderr)
        return 1
    print("deployed; start runs with: python -m deployments.launcher --pool", WORK_POOL)
    print("register endpoints at third parties with: python -m deployments.activate --all")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m deployments.deploy", description="Deploy to the server of PREFECT_API_URL."
    )
    parser.add_argument(
        "--integrations",
        nargs="*",
        metavar="NAME",
        help="only these, and what operates them; by default everything",
    )
    parser.add_argument("--blocks", nargs="*", type=Path, default=[], help="YAML: type/name → …")
    return parser


if __name__ == "__main__":
    sys.exit(main())
