"""The shape of the project: names, entrypoints, and what may be imported where."""

from __future__ import annotations

import importlib
import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from prefect import Flow

PROJECT = Path(__file__).parents[1]
PACKAGES = ("blocks", "tasks", "flows", "deployments")
PREFECT_YAML = yaml.safe_load((PROJECT / "prefect.yaml").read_text())
DEPLOYMENTS = PREFECT_YAML["deployments"]
VAGUE = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "data", "base"}


def modules() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((PROJECT / package).rglob("*.py"))]


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda d: d["name"])
def test_every_entrypoint_is_a_described_flow(deployment):
    """Each deployment's module path leads to a flow with a docstring and described parameters."""
    module, _, name = deployment["entrypoint"].rpartition(".")
    flow = getattr(importlib.import_module(module), name)
    assert isinstance(flow, Flow)
    assert flow.fn.__doc__
    assert deployment["description"].strip()
    described = flow.fn.__doc__.partition("Args:")[2]
    undescribed = [p for p in flow.parameters.properties if f"{p}:" not in described]
    assert undescribed == []


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda d: d["name"])
def test_every_declared_parameter_is_accepted(deployment):
    """What prefect.yaml passes is what the flow takes: no run fails for its parameters."""
    module, _, name = deployment["entrypoint"].rpartition(".")
    flow = getattr(importlib.import_module(module), name)
    given = {
        key: value
        for key, value in (deployment.get("parameters") or {}).items()
        if not (isinstance(value, dict) and "__prefect_kind" in value)
    }
    needed = set(flow.parameters.required or [])
    for trigger in deployment.get("triggers") or []:
        needed -= set(trigger.get("parameters") or {})
    assert set(given) <= set(flow.parameters.properties)
    if needed <= set(given):
        flow.validate_parameters(given)


def test_every_schedule_names_its_zone():
    """A cron without a zone means another hour on another server."""
    for deployment in DEPLOYMENTS:
        for schedule in deployment.get("schedules") or []:
            assert schedule.get("timezone"), deployment["name"]


def test_deployments_of_an_integration_share_its_tag():
    """One filter in the Prefect UI finds all deployments of an integration."""
    for deployment in DEPLOYMENTS:
        integration = deployment["entrypoint"].split(".")[1].replace("_", "-")
        assert integration in deployment["tags"], deployment["name"]


def test_the_readme_table_lists_every_integration():
    """The table in the README names each package below flows/, and nothing else."""
    readme = (PROJECT / "README.md").read_text()
    listed = set(re.findall(r"^\| \[`flows/(\w+)`\]", readme, re.MULTILINE))
    present = {path.parent.name for path in (PROJECT / "flows").glob("*/__init__.py")}
    present |= {path.stem for path in (PROJECT / "flows").glob("*.py")} - {"__init__"}
    assert listed == present


def test_module_names_say_what_is_inside():
    """No module is named after nothing, the standard library or an installed package."""
    installed = set(importlib.metadata.packages_distributions())
    for path in modules():
        assert path.stem not in VAGUE, path
    for package in (PROJECT / "flows").iterdir():
        assert package.stem not in sys.stdlib_module_names | installed | set(PACKAGES), package


def test_every_module_says_what_it_promises():
    """Each module begins with a sentence."""
    for path in modules():
        assert path.read_text().startswith('"""'), path


def test_the_gateway_runs_without_prefect():
    """Importing the gateway loads no Prefect: it accepts deliveries while Prefect is down."""
    code = "import sys, deployments.gateway.app; sys.exit('prefect' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=PROJECT).returncode == 0


def test_the_repository_holds_no_path_of_one_machine():
    """Whatever is committed works from any directory."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=PROJECT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name in listed.stdout.splitlines():
        path = PROJECT / name
        if path.suffix in {".py", ".md", ".yaml", ".toml", ".cfg", ""} and path.is_file():
            assert not re.search(
                r"(^|[\s\"'(=])/(work/main|home/\w+/\w|root/\w)", path.read_text()
            ), name
