"""The guides name what there is: calls that an application must offer, files, units, variables."""

from __future__ import annotations

import configparser
import importlib
import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args
from uuid import uuid4

import pytest
import yaml
from prefect.events.schemas.automations import AutomationCore

from blocks.errors import MisconfiguredError
from deployments.documents import PAGES, TABLES, stale_pages, with_tables
from deployments.prefect_file import completed, own_declarations
from deployments.register_blocks import block_types
from deployments.services.gateway.metrics import Metrics
from deployments.services.listeners.metrics import ListenerMetrics
from deployments.services.listeners.sources import AnySource, SourceDeclaration
from sandbox.systems.own_app.events import EVENT_TYPES
from sandbox.systems.own_app.records import RESOURCES
from sandbox.systems.own_app.serving import RunningOwnApp
from tasks.core.registry.declarations import EndpointDeclaration
from tasks.core.registry.registrations import (
    Registration,
    RestRegistration,
    SalesforceRegistration,
)
from tasks.core.sync.batches.application_records import MODELS

PROJECT = Path(__file__).parents[1]
FLOWS = {path.parent.name for path in (PROJECT / "flows").glob("*/__init__.py")}
OWN_APP = (PROJECT / "docs/own-app.md").read_text()
NAME = re.compile(r"`([A-Z][A-Z0-9_]+)`")
CALL = re.compile(r"`(GET|POST|PUT|PATCH|DELETE) ([^`\s]+)`")
SOURCES = get_args(get_args(AnySource)[0])
KEYS = {
    "sku": "000017", "order_no": "SO-1", "contact_id": "K-7", "activity_id": "A-1",
    "ticket_no": "T-1",
}  # fmt: skip
RECORDS: dict[str, dict[str, Any]] = {
    "inventory": {"sku": "000017", "name": "Widget", "quantity": 5},
    "products": {
        "sku": "000017", "name": "Widget", "price": "12.00", "currency": "EUR", "active": True,
    },
    "orders": {
        "order_no": "SO-1", "customer": "Ada", "ordered_at": "2026-03-01T09:30:00Z",
        "status": "new", "total": "12.00", "currency": "EUR", "lines": [],
    },
    "contacts": {"contact_id": "K-7", "name": "Ada Okafor", "email": "ada@example.com"},
    "activities": {"activity_id": "A-1", "kind": "push", "title": "1 commit"},
    "tickets": {"ticket_no": "T-1", "title": "It does not start", "status": "open"},
}  # fmt: skip


def rows(text: str, first_cell: str) -> Iterator[list[str]]:
    """The cells of each row of the table whose head begins so."""
    lines = iter(text.splitlines())
    for line in lines:
        if line.startswith(f"| {first_cell} |"):
            break
    next(lines)
    for line in lines:
        if not line.startswith("|"):
            return
        yield [cell.strip() for cell in line.strip("|").split(" | ")]


def body_of(path: str) -> dict[str, Any]:
    resource, _, rest = path.partition("/")
    if rest == "batch":
        return {"records": [RECORDS[resource]]}
    if rest.endswith("adjustments"):
        return {"action": "add", "quantity": 3}
    if resource == "webhooks":
        return {"url": "http://127.0.0.1:9/", "events": ["order.created"], "description": "x/y"}
    return RECORDS[resource]


def test_every_call_of_the_contract_is_served(own_app: RunningOwnApp):
    """What the guide asks of an application the sandbox's own application offers, call by call."""
    calls = sorted(set(CALL.findall(OWN_APP)), key=lambda call: call[0] == "DELETE")
    assert len(calls) > 20
    for resource, record in RECORDS.items():
        batch = own_app.http.post(
            f"/api/v1/{resource}/batch",
            json={"records": [record]},
            headers={"Idempotency-Key": f"seed-{resource}"},
        )
        assert batch.json()["created"] == 1
    webhook = own_app.http.post("/api/v1/webhooks", json=body_of("webhooks")).json()
    for number, (method, named) in enumerate(calls):
        for path in [named.replace("{resource}", each) for each in RESOURCES]:
            filled = path.format_map(KEYS | {"id": webhook["id"]})
            answer = own_app.http.request(
                method,
                f"/api/v1/{filled}",
                json=None if method in ("GET", "DELETE") else body_of(filled),
                headers={"Idempotency-Key": f"{number}-{path}"} if method == "POST" else {},
            )
            assert answer.is_success, (method, filled, answer.text)
            if path == named:
                break


def test_the_contract_has_the_records_of_the_application():
    """Resources, keys and fields in the guide are those of the sandbox, in their order."""
    told = {
        resource: (key.strip("`"), re.findall(r"`(\w+)`", fields))
        for resource, key, fields in rows(OWN_APP, "resource")
    }
    assert told == {
        name: (each.key_field, [field for field in each.columns if field != each.key_field])
        for name, each in RESOURCES.items()
    }
    for name, model in MODELS.items():
        assert set(model.model_fields) <= {told[name][0], *told[name][1]}


def test_the_contract_names_each_integration_that_needs_the_application():
    """Users of its block are in the table, and ask for events that it has."""
    named = [
        name for cells in rows(OWN_APP, "integration") for name in re.findall(r"`(\w+)`", cells[0])
    ]
    using = [each for each in own_declarations() if "http-api/own-app" in each.blocks]
    assert sorted(named) == sorted(each.integration for each in using)
    for each in using:
        for registration in each.registrations.values():
            if registration.connection == "http-api/own-app":
                assert set(registration.events) <= set(EVENT_TYPES)


@pytest.mark.parametrize("text", re.findall(r"```json\n(.*?)```", OWN_APP, re.DOTALL))
def test_examples_of_the_contract_are_json(text):
    """Each example can be read, and its records have the fields that the application knows."""
    example = json.loads(text)
    if "type" in example:
        shown = set(RESOURCES["contacts"].columns) | {"changed_at", "version"}
        assert set(example["data"]) == shown
    for record in example.get("records", []):
        assert set(record) <= set(RESOURCES["inventory"].columns)


def yaml_examples() -> Iterator[Any]:
    """Each deployment that a guide shows, as an entry behind those of prefect.yaml."""
    for guide in sorted((PROJECT / "docs").glob("*.md")):
        for number, text in enumerate(
            re.findall(r"```yaml\n(.*?)```", guide.read_text(), re.DOTALL)
        ):
            if re.search(r"^  - (<<: \*|name: )", text):
                yield pytest.param(text, id=f"{guide.stem}-{number}")


@pytest.mark.parametrize("text", list(yaml_examples()))
def test_deployments_in_guides_can_be_deployed(text):
    """What a guide shows for prefect.yaml has all that an entry needs, and its flow takes it."""
    given = (PROJECT / "prefect.yaml").read_text()
    before = len(yaml.safe_load(given)["deployments"])
    document = completed(yaml.safe_load(f"{given.rstrip()}\n\n{text}"), own_declarations())
    for entry in document["deployments"][before:]:
        assert entry["work_pool"]
        assert entry["tags"]
        assert entry["description"]
        module, _, name = entry["entrypoint"].rpartition(".")
        if module.split(".")[1] not in FLOWS:  # one that the reader is to write
            continue
        assert entry["tags"][0] == module.split(".")[1].replace("_", "-")
        getattr(importlib.import_module(module), name).validate_parameters(entry["parameters"])


def test_the_example_of_http_apis_is_right():
    """The block that the guide shows can be made, and its flow imports what there is."""
    guide = (PROJECT / "docs/http-apis.md").read_text()
    documents, code = re.findall(r"```(?:yaml|python)\n(.*?)```", guide, re.DOTALL)
    for slug, fields in yaml.safe_load(documents).items():
        assert block_types()[slug.partition("/")[0]](**fields)
    namespace: dict[str, Any] = {}
    exec(compile(code, "http-apis.md", "exec"), namespace)
    assert namespace["stock_to_warehouse"].fn.__doc__


def test_tables_are_as_declared():
    """Those of README and guides that follow from integration.yaml and prefect.yaml."""
    stale = [str(path.relative_to(PROJECT)) for path in stale_pages()]
    assert not stale, f"{', '.join(stale)}: run make docs"


def test_each_table_stands_somewhere():
    """None is forgotten when a page is written anew."""
    pages = "".join((PROJECT / page).read_text() for page in PAGES)
    assert set(re.findall(r"<!-- begin: (.+?) -->", pages)) == set(TABLES)


def test_a_marker_of_no_table_is_told():
    """With the names of those that there are."""
    with pytest.raises(MisconfiguredError, match="there is no such table; there are integrations"):
        with_tables("<!-- begin: nonsense -->\n<!-- end -->\n")


DOCUMENTS = [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *(PROJECT / "docs").glob("*.md")]


def anchors(document: Path) -> set[str]:
    """What a link may name after "#": GitHub's form of each heading."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document):
    """Each link to a file or a heading of the project finds it, and so does each path in code."""
    text = document.read_text()
    for target in re.findall(r"\]\((?!https?://)([^)\s]+)\)", text):
        name, _, anchor = target.partition("#")
        file = (document.parent / name).resolve() if name else document
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target
    for path in re.findall(r"`((?:flows|tasks|deployments|blocks|docs|benchmarks)/[\w./]+)`", text):
        assert (PROJECT / path).exists() or (PROJECT / f"{path}.py").exists(), path


def test_every_guide_is_in_the_readme():
    """Whoever reads the README finds each guide."""
    linked = set(re.findall(r"\]\(docs/([\w-]+\.md)", (PROJECT / "README.md").read_text()))
    assert linked == {path.name for path in (PROJECT / "docs").glob("*.md")}


DEPLOYING = (PROJECT / "docs/deploying.md").read_text()


def test_every_variable_of_the_project_is_in_the_guide():
    """Each INTEGRATIONS_… variable that code reads is in the table of the deploying guide."""
    read = {
        name
        for package in ("blocks", "tasks", "flows", "deployments")
        for path in (PROJECT / package).rglob("*.py")
        if not {"sandbox", "demo"} & set(path.parts)
        for name in re.findall(r"INTEGRATIONS_[A-Z_]+", path.read_text())
    }
    told = {name for cells in rows(DEPLOYING, "variable") for name in NAME.findall(cells[0])}
    # the launcher tells its own runs where its socket is
    assert {name for name in told if name.startswith("INTEGRATIONS_")} == read - {
        "INTEGRATIONS_LAUNCHER_SOCKET"
    }


def test_every_metric_is_in_the_guide():
    """What /metrics has of the gateway and the listeners is in the deploying guide's table."""
    gateway, listeners = Metrics(), ListenerMetrics()
    text = gateway.exposition().decode() + listeners.exposition().decode()
    types = re.findall(r"^# TYPE ((?:gateway|listener)_\w+) (\w+)$", text, re.MULTILINE)
    there = {
        f"{name}_total" if kind == "counter" and not name.endswith("_total") else name
        for name, kind in types
    }
    assert first_names(DEPLOYING, "metric") == there


@pytest.mark.parametrize("file", sorted((PROJECT / "docs/systemd").glob("*.service")), ids=str)
def test_units_start_what_there_is(file):
    """Each unit runs a module of the project with options that it knows, as the guide tells."""
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(file)
    service = unit["Service"]
    python, _, module, *options = service["ExecStart"].split()
    assert python == f"{service['WorkingDirectory']}/.venv/bin/python"
    assert importlib.util.find_spec(module) is not None
    place = PROJECT / "deployments/services" / module.removeprefix("deployments.")
    text = (place / "__main__.py" if place.is_dir() else place.with_suffix(".py")).read_text()
    for option in options[::2]:
        # those of prefect_on_sqlite are Prefect's own
        assert f'"{option}"' in text or module == "deployments.prefect_on_sqlite", option
    assert f"python -m {module}" in DEPLOYING


def test_prefect_takes_the_automations():
    """Those that the guide has one make are what Prefect's own command reads."""
    text = (PROJECT / "docs/automations.yaml").read_text()
    automations = yaml.safe_load(text.replace("BLOCK_ID", str(uuid4())))["automations"]
    told = {cells[0] for cells in rows(DEPLOYING, "automation")}
    assert told == {AutomationCore.model_validate(each).name for each in automations}


def test_tables_of_declarations_have_every_field():
    """The guides' tables name each field of endpoints, registrations and sources, and no other."""
    webhooks = (PROJECT / "docs/webhooks.md").read_text()
    assert first_names(webhooks, "field") == set(EndpointDeclaration.model_fields)
    activation = (PROJECT / "docs/activation.md").read_text()
    rest, salesforce = activation.split("Of `kind: salesforce`", 1)
    shared = set(Registration.model_fields) | {"kind"}
    assert first_names(rest, "field") == set(RestRegistration.model_fields)
    assert first_names(salesforce, "field") | shared == set(SalesforceRegistration.model_fields)
    listeners = (PROJECT / "docs/listeners.md").read_text()
    common = first_names(listeners, "field of every source")
    assert common == set(SourceDeclaration.model_fields) | {"kind", "connection"}
    kinds = {cells[0].strip("`"): cells[1] for cells in rows(listeners, "kind")}
    sources = {get_args(each.model_fields["kind"].annotation)[0]: each for each in SOURCES}
    assert set(kinds) == set(sources)
    for kind, source in sources.items():
        own = set(source.model_fields) - common
        assert own <= set(re.findall(r"`(\w+)`", kinds[kind])), kind


def first_names(text: str, first_cell: str) -> set[str]:
    cells = [each[0] for each in rows(text, first_cell)]
    return {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}


def test_the_architecture_names_modules_that_are_there():
    """Each module of the walks exists; one without a folder stands beside the one before it."""
    page = (PROJECT / "docs" / "architecture.md").read_text()
    floors = (PROJECT, PROJECT / "tasks", PROJECT / "deployments")
    folders: list[Path] = []
    for name in re.findall(r"`([\w/]+\.py)`", page):
        if "/" in name:
            folders = [(floor / name).parent for floor in floors if (floor / name).exists()]
            assert folders, name
        elif folders and not any((folder / name).exists() for folder in folders):
            assert list((PROJECT / "tasks" / "core").rglob(name)), name
