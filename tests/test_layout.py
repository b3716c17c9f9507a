"""The shape of the project: names, entrypoints, and what may be imported where."""

from __future__ import annotations

import importlib
import importlib.metadata
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect import Flow

from deployments.prefect_file import completed, integration_of, read_deployments
from deployments.register_blocks import block_types
from deployments.work_pool import WORK_POOL
from tasks.core.registry.declarations import IntegrationDeclaration, read_declarations

PROJECT = Path(__file__).parents[1]
PACKAGES = ("blocks", "tasks", "flows", "deployments")
DEPLOYMENTS = read_deployments()
BLOCK_TYPES = set(block_types())
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
    for schedule in [{}, *(deployment.get("schedules") or [])]:
        with_schedule = given | (schedule.get("parameters") or {})
        assert set(with_schedule) <= set(flow.parameters.properties)
        if needed <= set(with_schedule):
            flow.validate_parameters(with_schedule)


def test_the_inbox_is_purged_by_itself():
    """What is finished goes every day when it is a month old; started by hand it is counted."""
    [purge] = [each for each in DEPLOYMENTS if each["name"] == "purge-deliveries"]
    assert not purge.get("parameters")
    [daily] = purge["schedules"]
    assert daily["parameters"] == {"older_than_days": 30, "dry_run": False}


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


RETURNS = IntegrationDeclaration.model_validate(
    {
        "integration": "returns",
        "endpoints": {"r": {"path": "/r", "scheme": "none", "feeds": "returns"}},
    }
)


def declared_in(guide: str) -> list[IntegrationDeclaration]:
    """The declarations that a guide shows."""
    texts = re.findall(r"^```yaml\n(integration: .+?)^```", guide, re.MULTILINE | re.DOTALL)
    return [IntegrationDeclaration.model_validate(yaml.safe_load(text)) for text in texts]


def test_the_guide_s_deployments_can_be_deployed():
    """Put at the end of prefect.yaml as they stand, they have what every deployment needs."""
    guide = (PROJECT / "docs/inbox.md").read_text()
    entries = re.findall(r"^```yaml\n(  - <<: .+?)^```", guide, re.MULTILINE | re.DOTALL)
    added = yaml.safe_load("".join([(PROJECT / "prefect.yaml").read_text(), *entries]))
    added = completed(added, [RETURNS, *declared_in(guide)])
    of_the_guide = added["deployments"][len(DEPLOYMENTS) :]
    assert [each["name"] for each in of_the_guide] == ["returns", "shop-events"]
    for each in of_the_guide:
        assert each["work_pool"] == {"name": WORK_POOL}
        assert each["tags"][0] == each["entrypoint"].split(".")[1].replace("_", "-")
        assert each["description"] not in {other["description"] for other in DEPLOYMENTS}
        waits_at = f"inbox.{each['name'].replace('-', '_')}"
        assert each["triggers"][0]["match"] == {"prefect.resource.id": waits_at}


INTEGRATIONS = {path.parent.name: path for path in (PROJECT / "flows").glob("*/__init__.py")}


@pytest.mark.parametrize("name", sorted(INTEGRATIONS))
def test_each_integration_declares_itself(name):
    """Its integration.yaml has its package's name, and every block that its deployments use."""
    (declared,) = read_declarations([INTEGRATIONS[name].with_name("integration.yaml")])
    assert declared.integration == name
    assert declared.pattern
    assert declared.summary
    own = [each for each in DEPLOYMENTS if integration_of(each) == name]
    for endpoint in declared.endpoints.values():
        assert endpoint.feeds in {each["name"] for each in own}
    used = {each.connection for each in declared.registrations.values()}
    answered = [each.request_reply for each in declared.endpoints.values() if each.request_reply]
    used |= {each.callback.signed_by for each in answered if each.callback}
    for deployment in own:
        used |= set(block_slugs(deployment.get("parameters"))) | set(default_slugs(deployment))
    assert set(declared.blocks) == used


@pytest.mark.parametrize("name", sorted(INTEGRATIONS))
def test_what_registers_is_activated_and_deactivated(name):
    """Whoever has something to register has a deploy-time flow for it, and one to take it back."""
    (declared,) = read_declarations([INTEGRATIONS[name].with_name("integration.yaml")])
    tag = name.replace("_", "-")
    found = {
        each["name"]: each["parameters"]
        for each in DEPLOYMENTS
        if each["entrypoint"].endswith("activate_integration") and integration_of(each) == name
    }
    expected = {f"activate-{tag}", f"deactivate-{tag}"} if declared.registrations else set()
    assert found == {each: {"integration": name} for each in expected}


def block_slugs(value: Any) -> Iterator[str]:
    """Block slugs in parameters, however deep."""
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from block_slugs(inner)
    elif (
        isinstance(value, str) and value.count("/") == 1 and value.partition("/")[0] in BLOCK_TYPES
    ):
        yield value


def default_slugs(deployment: dict[str, Any]) -> Iterator[str]:
    """Block slugs that the flow takes where the deployment gives none."""
    module, _, name = deployment["entrypoint"].rpartition(".")
    flow = getattr(importlib.import_module(module), name)
    given = deployment.get("parameters") or {}
    for parameter, schema in flow.parameters.properties.items():
        if parameter not in given:
            yield from block_slugs(schema.get("default"))


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


def test_nothing_shipped_names_a_module_of_the_sandbox():
    """Not in a command or for importlib either, where the layers' contract cannot see it."""
    named = re.compile(r"""(?<!jinja2\.)\bsandbox\.\w|["']sandbox["']""")
    declarations = (PROJECT / "flows").rglob("*.yaml")
    for path in [*modules(), *declarations, PROJECT / "prefect.yaml"]:
        assert not named.search(path.read_text()), path


def test_the_gateway_runs_without_prefect():
    """Importing the gateway loads no Prefect: it accepts deliveries while Prefect is down."""
    code = "import sys, deployments.services.gateway.app; sys.exit('prefect' in sys.modules)"
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
