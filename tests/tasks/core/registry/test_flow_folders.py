"""Integrations of another project, in a folder `flows` of its own, stand beside ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.core.registry.flow_folders import flow_folders

OURS = Path(__file__).parents[4] / "flows"
DECLARED = """
integration: invoices_intake
flows: [flow.take_invoice]
deployments: [invoices-intake]
endpoints:
  invoices: {path: /webhooks/invoices, scheme: standard-webhooks, secrets: {env: [INVOICES_SECRET]}}
"""
SOURCES = """
integration: invoices_intake
sources:
  invoices-sqs: {kind: sqs, queue: invoices, connection: {region: eu-central-1}}
"""


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """The `flows` of a project with one integration."""
    package = tmp_path / "flows" / "invoices_intake"
    (package / "samples").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "flow.py").write_text("def take_invoice(): ...\n")
    (package / "integration.yaml").write_text(DECLARED)
    (package / "sources.yaml").write_text(SOURCES)
    (package / "samples" / "invoice_sent.json").write_text("{}")
    return package.parent


def run(theirs: Path, *arguments: str) -> str:
    """What Python says whose path begins with their project."""
    environment = os.environ | {
        "PYTHONPATH": str(theirs.parent),
        "INVOICES_SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "INTEGRATIONS_DATABASE_URL": f"sqlite:///{theirs.parent / 'state.db'}",
    }
    for name in ("INTEGRATIONS_ENDPOINTS", "INTEGRATIONS_SOURCES"):
        environment.pop(name, None)
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, cwd=theirs.parent,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    return done.stdout


def test_each_folder_is_there_once():
    """Ours is on the path twice where Python is started in the project's folder."""
    assert flow_folders() == [OURS]


def test_declarations_and_flows_of_both_projects_are_found(theirs):
    """Everything that looks for integrations finds theirs, and imports flows of both."""
    script = """
from deployments.deploy import deployments_of
from deployments.services.listeners.declarations import declaration_files as source_files
from flows.github_events import flow as of_ours
from flows.invoices_intake import flow as of_theirs
from sandbox.send_sample import endpoint_of, read_sample
from tasks.core.registry.activation.desired import declared_integrations
from tasks.core.registry.flow_folders import flow_folders

print(*flow_folders(), sep="\\n")
print({"github_events", "invoices_intake"} <= declared_integrations().keys())
# theirs is known; what is deployed of it stands in a prefect.yaml of their own
print("github-events" in deployments_of(["github-events", "invoices-intake"]))
print([file.parent.name for file in source_files()])
sample = read_sample("invoice_sent")
print(sample.integration, endpoint_of(sample.integration).path, read_sample("push").integration)
"""
    assert run(theirs, "-c", script).splitlines() == [
        str(theirs),
        str(OURS),
        "True",
        "True",
        "['invoices_intake', 'stream_intake']",
        "invoices_intake /webhooks/invoices github_events",
    ]


def test_the_gateway_serves_the_endpoints_of_both_projects(theirs):
    """Theirs and ours are told when it starts."""
    told = run(theirs, "-m", "deployments.gateway", "--check")
    assert "invoices: standard-webhooks, for invoices_intake" in told
    assert "github answers 503" in told
