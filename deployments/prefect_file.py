"""Reads `prefect.yaml`, and completes its deployments by what the declarations say already."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from tasks.core.intake.inbox.notification import EVENT_NAME, resource_id
from tasks.core.registry.declarations import (
    IntegrationDeclaration,
    declaration_files,
    read_declarations,
)

PROJECT = Path(__file__).parents[1]
PREFECT_FILE = PROJECT / "prefect.yaml"
_ACTIVATION = "integration_activation"


def read_deployments() -> list[dict[str, Any]]:
    """The deployments of the project, complete, in the order of the file."""
    document = yaml.safe_load(PREFECT_FILE.read_text())
    deployments: list[dict[str, Any]] = completed(document, own_declarations())["deployments"]
    return deployments


def own_declarations() -> list[IntegrationDeclaration]:
    """The declarations beside the flows, whatever the gateway is told to serve."""
    return read_declarations(declaration_files(""))


def completed(
    document: dict[str, Any], declared: Sequence[IntegrationDeclaration]
) -> dict[str, Any]:
    """What a `prefect.yaml` says, as Prefect takes it: each deployment with its tags and trigger.

    Args:
        document: The file's content. A deployment's `queue` names the queue of the inbox in which
            its deliveries wait, where no endpoint does.
        declared: Whose endpoints say which deployments they feed.
    """
    return document | {
        "deployments": [_completed(each, declared) for each in document["deployments"]]
    }


def integration_of(deployment: dict[str, Any]) -> str:
    """The integration that a deployment belongs to; "" for an entrypoint outside `flows`.

    It is the package of the flow; what activates and deactivates belongs to the integration that
    it is given.
    """
    package = _package(deployment)
    if package != _ACTIVATION:
        return package
    integration: str = (deployment.get("parameters") or {}).get("integration", package)
    return integration


def queues_of(deployment: dict[str, Any]) -> list[str]:
    """The queues of the inbox whose deliveries start a complete deployment."""
    found: list[str] = []
    for trigger in deployment.get("triggers") or []:
        resources = (trigger.get("match") or {}).get("prefect.resource.id") or []
        found += [resources] if isinstance(resources, str) else resources
    inbox = resource_id("")
    return [each.removeprefix(inbox) for each in found if each.startswith(inbox)]


def _completed(
    deployment: dict[str, Any], declared: Sequence[IntegrationDeclaration]
) -> dict[str, Any]:
    packages = filter(None, (integration_of(deployment), _package(deployment)))
    tags = [each.replace("_", "-") for each in packages] + (deployment.get("tags") or [])
    complete = deployment | {"tags": list(dict.fromkeys(tags))}
    complete.pop("queue", None)
    queues = _fed_from(deployment, declared)
    if queues and "triggers" not in deployment:
        complete["triggers"] = [_trigger(deployment["name"], queues)]
    return complete


def _fed_from(deployment: dict[str, Any], declared: Sequence[IntegrationDeclaration]) -> list[str]:
    fed = [
        endpoint.queue or each.integration
        for each in declared
        for endpoint in each.endpoints.values()
        if endpoint.feeds == deployment["name"]
    ]
    named = [deployment["queue"]] if "queue" in deployment else []
    return list(dict.fromkeys(named + fed))


def _package(deployment: dict[str, Any]) -> str:
    root, *rest = deployment["entrypoint"].split(".")
    return rest[0] if root == "flows" and len(rest) > 1 else ""


def _trigger(name: str, queues: Sequence[str]) -> dict[str, Any]:
    resources = [resource_id(each) for each in queues]
    return {
        "type": "event",
        "name": f"deliveries wait for {name}",
        "enabled": True,
        "match": {"prefect.resource.id": resources if len(resources) > 1 else resources[0]},
        "expect": [EVENT_NAME],
    }
