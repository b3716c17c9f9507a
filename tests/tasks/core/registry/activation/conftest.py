"""Activations in processes of their own, at the sandbox's GitHub, Salesforce and own app."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.fernet import Fernet

from sandbox.systems.github_api import GithubSandbox
from sandbox.systems.own_app.serving import RunningOwnApp
from sandbox.systems.salesforce import SalesforceSandbox

KEY = Fernet.generate_key().decode()
DECLARATION = """
integration: shop
endpoints:
  github: {path: /github, scheme: github, secrets: {stored: shop-github}}
  own-app: {path: /own-app, scheme: standard-webhooks, secrets: {stored: shop-own-app}}
  crm: {path: /salesforce, scheme: salesforce, options: {organization_ids: [00D000000000062EAA]}}
registrations:
  repository:
    kind: rest
    endpoint: github
    connection: http-api/github
    path: repos/example-shop/storefront/hooks
    events: [push, issues]
    secret: {name: shop-github, made_by: us}
    body: {name: web, active: true, config: {content_type: json, insecure_ssl: "0"}}
    pagination: {kind: link_header}
    url_field: config.url
    secret_field: config.secret
    marker_field: null
    ping: null
  orders:
    kind: rest
    endpoint: own-app
    connection: http-api/own-app
    path: webhooks
    events: [order.created]
    secret: {name: shop-own-app}
    ping: null
  opportunity-created:
    kind: salesforce
    endpoint: crm
    connection: http-api/salesforce
    object: Opportunity
    when: created
    user: integration@sandbox.example
  contact-created:
    kind: salesforce
    endpoint: crm
    connection: http-api/salesforce
    object: Contact
    when: created
    user: integration@sandbox.example
"""


class Activations:
    """Activates an integration again and again, and shows what is registered where.

    Attributes:
        declaration: What it declares; tests change it.
        public_url: Where third parties reach the gateway; tests change it.
        key: Of stored secrets.
    """

    def __init__(
        self,
        process: subprocess.Popen[str],
        places: dict[str, Any],
        folder: Path,
        migrated: Path,
        github: GithubSandbox,
        salesforce: SalesforceSandbox,
        own_app: RunningOwnApp,
    ) -> None:
        self._process = process
        self._places = places
        self._migrated = migrated
        self._database = folder / "state.db"
        self.github = github
        self.salesforce = salesforce
        self.own_app = own_app
        self.key = KEY
        self.fresh()

    def fresh(self) -> None:
        """Nothing was ever registered, except one webhook each of somebody else."""
        self.declaration: dict[str, Any] = yaml.safe_load(DECLARATION)
        self.public_url = "https://hooks.example"
        for name in ("state.db", "state.db-wal", "state.db-shm"):
            self._database.with_name(name).unlink(missing_ok=True)
        shutil.copy(self._migrated, self._database)
        self.github.reset()
        self.salesforce.reset()
        for each in self.own_app.http.get("/api/v1/webhooks").json()["webhooks"]:
            self.own_app.http.delete(f"/api/v1/webhooks/{each['id']}")
        foreign = {"url": "https://elsewhere.example/own-app", "events": ["order.created"]}
        self.own_app.http.post("/api/v1/webhooks", json=foreign)
        self.salesforce.tooling.create(
            "WorkflowOutboundMessage",
            {
                "FullName": "Contact.foreign",
                "Metadata": {"endpointUrl": "https://elsewhere.example/"},
            },
        )

    @property
    def database(self) -> str:
        """The state database's URL."""
        return f"sqlite:///{self._database}"

    def run(self, *, kill_at: int = 0, deactivate: bool = False, **more: Any) -> dict[str, Any]:
        """Activate in a process of its own; killed at a step if that is told."""
        declaration = {**self.declaration}
        if deactivate:
            declaration["registrations"] = {}
        command = {
            "places": self._places,
            "database": self.database,
            "key": self.key,
            "declaration": declaration,
            "public_url": self.public_url,
            "kill_at": kill_at,
            **more,
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def became(self, **options: Any) -> dict[str, str]:
        """Activate; name of each registration to what became of it, and none failed."""
        answer = self.run(**options)
        assert "done" in answer, answer
        assert [each["told"] for each in answer["done"] if each["became"] == "failed"] == []
        return {each["name"]: each["became"] for each in answer["done"]}

    def registered(self) -> dict[str, list[Any]]:
        """What is registered where, apart from ids and secrets."""
        webhooks = self.own_app.http.get("/api/v1/webhooks").json()["webhooks"]
        hooks = self.github.hooks.hooks.values()
        return {
            "github": sorted([hook.config["url"], *sorted(hook.events)] for hook in hooks),
            "own app": sorted([each["url"], *each["events"]] for each in webhooks),
            "salesforce": sorted(self.salesforce.tooling.registered().items()),
            "salesforce objects": self.salesforce.tooling.objects(),
        }

    def expected(self, *names: str) -> dict[str, list[Any]]:
        """What `registered` shows when these registrations are there, and those of others."""
        url = self.public_url
        own = [[f"{url}/own-app", "order.created"]] if "orders" in names else []
        crm = [
            f"{object_}.shop_{name.replace('-', '_')}"
            for object_, name in (
                ("Contact", "contact-created"),
                ("Opportunity", "opportunity-created"),
            )
            if name in names
        ]
        kinds = ("WorkflowOutboundMessage", "WorkflowRule")
        return {
            "github": [[f"{url}/github", "issues", "push"]] if "repository" in names else [],
            "own app": sorted([["https://elsewhere.example/own-app", "order.created"], *own]),
            "salesforce": [(name, f"{url}/salesforce") for name in crm],
            "salesforce objects": sorted(
                [f"{kind} {name}" for kind in kinds for name in crm]
                + ["WorkflowOutboundMessage Contact.foreign"]
            ),
        }


@pytest.fixture(scope="session")
def activation_process() -> Iterator[subprocess.Popen[str]]:
    """Forks a process for each activation, which takes no time."""
    script = Path(__file__).with_name("activation_process.py")
    with subprocess.Popen(
        [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture
def activations(
    activation_process: subprocess.Popen[str],
    tmp_path: Path,
    migrated_sqlite: Path,
    github_api: GithubSandbox,
    salesforce: SalesforceSandbox,
    own_app: RunningOwnApp,
) -> Activations:
    """An integration with registrations at three third parties, never activated so far."""
    places = {
        "http-api/github": {
            "base_url": github_api.url,
            "headers": {"Authorization": "Bearer sandbox-github-token"},
        },
        "http-api/own-app": {
            "base_url": f"{own_app.base_url}/api/v1",
            "headers": dict(own_app.http.headers),
        },
        "http-api/salesforce": {
            "base_url": f"{salesforce.url}/services/data/v62.0",
            "headers": {},
            "token_url": f"{salesforce.url}/services/oauth2/token",
        },
    }
    return Activations(
        activation_process, places, tmp_path, migrated_sqlite, github_api, salesforce, own_app
    )
