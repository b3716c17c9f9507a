"""Prints one page about an integration: what is declared, and how it stands.

    python -m deployments.show NAME

Secrets and variables are named, never shown. What Prefect and the state database know is left out,
and a line says so, where they do not answer.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from blocks.errors import IntegrationError, MisconfiguredError
from deployments.documents import start_of, variables_of
from deployments.prefect_file import (
    PROJECT,
    integration_of,
    own_declarations,
    queues_of,
    read_deployments,
)
from deployments.running_demo import use_running_demo
from deployments.state_commands import harmless, tell_default_database
from tasks.core.intake.inbox.operations import InboxOperations
from tasks.core.intake.inbox.storage_errors import storage_errors
from tasks.core.registry.activation.desired import PUBLIC_URL_VARIABLE
from tasks.core.registry.activation.ledger import ActivationLedger
from tasks.core.registry.declarations import EndpointDeclaration, IntegrationDeclaration
from tasks.core.registry.secrets.store import KEY_VARIABLE, StoredSecrets
from tasks.core.registry.variables import VARIABLE
from tasks.core.state.database import URL_VARIABLE, open_database
from tasks.core.sync.api_import.cursors import Cursors

_STREAM_PARAMETERS = ("stream", "name")  # by which imports name their cursors
_FINISHED = frozenset({"done", "ignored", "cancelled"})


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the page; 0 if there is such an integration, 1 if not."""
    parser = argparse.ArgumentParser(
        prog="python -m deployments.show", description="Print all there is of an integration."
    )
    parser.add_argument("name", nargs="?", default="", help="e.g. github_events")
    options = parser.parse_args(arguments)
    try:
        declared = _declared(options.name)
    except IntegrationError as error:
        print(error, file=sys.stderr)
        return 1
    use_running_demo(URL_VARIABLE, "PREFECT_API_URL")
    tell_default_database()
    for line in page(declared, os.environ):
        print(harmless(line))
    return 0


def page(declared: IntegrationDeclaration, environment: Mapping[str, str]) -> Iterator[str]:
    """The lines about one integration.

    Args:
        declared: The integration.
        environment: Where it is looked up which variables are set.
    """
    deployments = [
        each for each in read_deployments() if integration_of(each) == declared.integration
    ]
    yield f"{declared.integration}: {declared.pattern}"
    yield f"  {declared.summary}"
    if declared.guide:
        yield f"  {declared.guide}"
    yield from _section("flows", dict.fromkeys(each["entrypoint"] for each in deployments))
    yield from _section(
        "deployments", _table([each["name"], start_of(each)] for each in deployments)
    )
    yield from _section("endpoints", _endpoints(declared.endpoints, environment))
    yield from _section("blocks", declared.blocks)
    yield from _section("variables", _variables(declared, environment))
    yield from _section("Prefect", _or_why_not(lambda: _in_prefect(declared, deployments)))
    yield from _or_why_not(lambda: _in_state_database(declared, deployments))


def _declared(name: str) -> IntegrationDeclaration:
    declared = {each.integration: each for each in own_declarations()}
    found = declared.get(name.replace("-", "_"))
    if found is None:
        raise MisconfiguredError(
            f"there is no such integration; there are {', '.join(declared)}",
            system="declarations",
            operation="show",
            record=name or None,
        )
    return found


def _endpoints(
    endpoints: Mapping[str, EndpointDeclaration], environment: Mapping[str, str]
) -> Iterator[str]:
    base_url = environment.get(PUBLIC_URL_VARIABLE, "").rstrip("/")
    for name, each in endpoints.items():
        # variables in paths stay as they are: they hide what nobody may guess
        yield f"{name}: {each.public_url or base_url + each.path}, scheme {each.scheme}"
    if not base_url and any(each.public_url is None for each in endpoints.values()):
        yield f"{PUBLIC_URL_VARIABLE} is not set: paths are those at the gateway"


def _variables(declared: IntegrationDeclaration, environment: Mapping[str, str]) -> Iterator[str]:
    secrets = [each.secrets for each in declared.endpoints.values()]
    names = [name for each in secrets for name in each.env] + variables_of(declared)
    names += [KEY_VARIABLE] if any(each.stored for each in secrets) else []
    sources = PROJECT / "flows" / declared.integration / "sources.yaml"
    names += VARIABLE.findall(sources.read_text()) if sources.exists() else []
    yield from _table(
        [name, "set" if environment.get(name) else "not set"] for name in dict.fromkeys(names)
    )
    for file in (file for each in secrets for file in each.files):
        yield f"{file}  {'there' if Path(file).exists() else 'not there'}"


def _in_prefect(
    declared: IntegrationDeclaration, deployments: Sequence[dict[str, Any]]
) -> Iterator[str]:
    import httpx
    from prefect.client.orchestration import get_client  # takes seconds
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags
    from prefect.exceptions import ObjectNotFound

    from deployments.prefect_server import require_server

    async def ask() -> list[list[str]]:
        tag = DeploymentFilterTags(all_=[declared.integration.replace("_", "-")])
        async with get_client() as client:
            found = await client.read_deployments(deployment_filter=DeploymentFilter(tags=tag))
            paused = {each.name: each.paused for each in found}
            told = [
                ["deployment", name, "paused" if paused[name] else "deployed"]
                if name in paused
                else ["deployment", name, "not deployed"]
                for name in (each["name"] for each in deployments)
            ]
            for slug in declared.blocks:
                type_, _, name = slug.partition("/")
                try:
                    await client.read_block_document_by_name(name, type_, include_secrets=False)
                except ObjectNotFound:
                    told.append(["block", slug, "not there"])
                else:
                    told.append(["block", slug, "there"])
            return told

    require_server()
    try:
        yield from _table(asyncio.run(ask()))
    except httpx.HTTPError as exc:
        raise MisconfiguredError(
            f"it does not answer ({type(exc).__name__})", system="Prefect", operation="read"
        ) from exc


def _in_state_database(
    declared: IntegrationDeclaration, deployments: Sequence[dict[str, Any]]
) -> Iterator[str]:
    engine = open_database()
    try:
        with storage_errors("show"):
            yield from _section("stored secrets", _stored_secrets(declared, engine))
            yield from _section("registrations", _registrations(declared, engine))
            yield from _section("cursors", _cursors(deployments, engine))
            yield from _section("deliveries", _deliveries(declared, deployments, engine))
    finally:
        engine.dispose()


def _stored_secrets(declared: IntegrationDeclaration, engine: Engine) -> Iterator[str]:
    versions = StoredSecrets(engine, []).versions()
    names = [name for each in declared.endpoints.values() for name in each.secrets.stored]
    yield from _table(
        [name, f"set, version {versions[name]}" if name in versions else "not set"]
        for name in dict.fromkeys(names)
    )


def _registrations(declared: IntegrationDeclaration, engine: Engine) -> Iterator[str]:
    ledger = ActivationLedger(engine, run_id="show")
    states = {each.integration: each for each in ledger.states()}
    if declared.registrations:
        state = states.get(declared.integration)
        yield "never activated" if state is None else "active" if state.is_active else "inactive"
    entries = {each.name: each for each in ledger.entries(declared.integration)}
    for name in dict.fromkeys([*declared.registrations, *entries]):
        entry = entries.get(name)
        told = "not registered"
        if entry is not None:
            there = entry.remote_id and not entry.is_intended
            told = f"{'active' if there else 'under way'}, calls {entry.shown_url}"
            told += f"; {entry.problem}" if entry.problem else ""
        place = declared.registrations[name].connection if name in declared.registrations else ""
        yield f"{name} at {place}: {told}" if place else f"{name}, declared no more: {told}"


def _cursors(deployments: Sequence[dict[str, Any]], engine: Engine) -> Iterator[str]:
    streams = {each.stream: each for each in Cursors(engine).streams()}
    for name in sorted(_stream_names(deployments) & streams.keys()):
        each = streams[name]
        yield f"{name}: {each.value or 'no cursor yet'}, {each.rejected} rejects"


def _stream_names(deployments: Sequence[dict[str, Any]]) -> set[str]:
    import importlib
    import inspect

    names = set()
    for each in deployments:
        module, _, function = each["entrypoint"].rpartition(".")
        flow = getattr(importlib.import_module(module), function)
        given = each.get("parameters") or {}
        for parameter in _STREAM_PARAMETERS:
            default = inspect.signature(flow.fn).parameters.get(parameter)
            names.add(given.get(parameter, default.default if default else None))
    return {name for name in names if isinstance(name, str)}


def _deliveries(
    declared: IntegrationDeclaration, deployments: Sequence[dict[str, Any]], engine: Engine
) -> Iterator[str]:
    queues = [queue for each in deployments for queue in queues_of(each)]
    queues += [each.queue or declared.integration for each in declared.endpoints.values()]
    counts = InboxOperations(engine).counts()
    for queue in dict.fromkeys(queues):
        found = {status: count for (name, status), count in counts.items() if name == queue}
        dead = found.pop("dead_letter", 0)
        waiting = sum(count for status, count in found.items() if status not in _FINISHED)
        yield f"{queue}: {waiting} wait, {dead} dead-lettered"


def _or_why_not(lines: Any) -> Iterator[str]:
    """The lines, or one that says why there are none."""
    try:
        yield from list(lines())
    except IntegrationError as error:
        yield re.sub(r"\s+", " ", str(error))


def _section(title: str, lines: Any) -> Iterator[str]:
    """The title and the lines below it; nothing if there are none."""
    found = list(lines)
    if found:
        yield ""
        yield title
        yield from (f"  {line}" for line in found)


def _table(rows: Any) -> Iterator[str]:
    found = list(rows)
    widths = [max(map(len, column)) for column in zip(*found, strict=True)]
    for row in found:
        yield "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()


if __name__ == "__main__":
    sys.exit(main())
