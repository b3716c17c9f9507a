"""Writes the tables of README and guides that follow from the declarations: `make docs`.

    python -m deployments.documents [--check]

A table stands between `<!-- begin: NAME -->` and `<!-- end -->`; the rest of a page is its
author's.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from blocks.errors import IntegrationError, MisconfiguredError
from deployments.prefect_file import (
    PROJECT,
    integration_of,
    own_declarations,
    queues_of,
    read_deployments,
)
from tasks.core.registry.declarations import IntegrationDeclaration
from tasks.core.registry.variables import VARIABLE

PAGES = ("README.md", "docs/deploying.md", "docs/own-app.md")
_MARKED = re.compile(r"(<!-- begin: (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)
_APPLICATION = "http-api/own-app"


def stale_pages() -> dict[Path, str]:
    """The pages whose tables are not as declared, with their content as it should be."""
    found = {}
    for path in (PROJECT / page for page in PAGES):
        text = path.read_text()
        if (present := with_tables(text)) != text:
            found[path] = present
    return found


def with_tables(text: str) -> str:
    """A page with its tables as declared.

    Raises:
        MisconfiguredError: It has a marker for a table that there is not.
    """
    return _MARKED.sub(lambda found: found[1] + _table(found[2]) + found[3], text)


def start_of(deployment: dict[str, Any]) -> str:
    """When runs of a complete deployment start, e.g. "cron 0 19 * * 4, Europe/Berlin"."""
    starts = [
        f"cron {each['cron']}, {each['timezone']}" for each in deployment.get("schedules") or []
    ]
    starts += [f"when deliveries wait in {queue}" for queue in queues_of(deployment)]
    return "; ".join(starts) or "by hand"


def variables_of(value: Any) -> list[str]:
    """The variables that (a part of) a declaration is filled in from, in order, none twice."""
    data = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    return list(dict.fromkeys(VARIABLE.findall(str(data))))


def _table(name: str) -> str:
    if name not in TABLES:
        raise MisconfiguredError(
            f"there is no such table; there are {', '.join(TABLES)}",
            system="documents",
            operation="write tables",
            record=name,
        )
    head, rows = TABLES[name]
    declared = sorted(own_declarations(), key=_rank)
    lines = [_row(head), "|" + "---|" * len(head), *map(_row, rows(declared))]
    return "".join(f"{line}\n" for line in lines)


def _row(cells: Sequence[str]) -> str:
    return "|" + "".join(f" {cell} |" if cell else " |" for cell in cells)


def _integrations(declared: Sequence[IntegrationDeclaration]) -> Iterator[list[str]]:
    modules = {}
    for each in reversed(read_deployments()):  # the first one remains
        modules[each["entrypoint"].split(".")[1]] = each["entrypoint"].rpartition(".")[0]
    for integration in declared:
        name = integration.integration
        file = modules.get(name, f"flows.{name}.flow").replace(".", "/")
        how = f"; [how]({integration.guide})" if integration.guide else ""
        yield [f"[`flows/{name}`]({file}.py)", integration.pattern, integration.summary + how]


def _deployments(declared: Sequence[IntegrationDeclaration]) -> Iterator[list[str]]:
    for integration in declared:
        for each in read_deployments():
            if integration_of(each) == integration.integration:
                start = re.sub(r"cron ([^,]+)", r"`\1`", start_of(each))
                yield [f"`{each['name']}`", f"`{integration.integration}`", start]


def _endpoints(declared: Sequence[IntegrationDeclaration]) -> Iterator[list[str]]:
    for integration in declared:
        for name, each in integration.endpoints.items():
            yield [f"`{name}`", f"`{each.path}`", f"`{each.scheme}`", f"`{each.feeds}`"]


def _variables(declared: Sequence[IntegrationDeclaration]) -> Iterator[list[str]]:
    for integration in declared:
        gateway: list[str] = []
        for each in integration.endpoints.values():
            names = [f"`{name}`" for name in each.secrets.env]
            agreed = f"({', '.join(names)})" if each.secrets.stored and names else ""
            gateway += [agreed] if agreed else names
            gateway += [f"`{name}`" for name in variables_of(each)]
        registered = {each.endpoint for each in integration.registrations.values()}
        filled = [integration.endpoints[name] for name in sorted(registered)]
        worker = [
            f"`{name}`"
            for name in dict.fromkeys(
                name
                for each in (*filled, *integration.registrations.values())
                for name in variables_of(each)
            )
        ]
        sources = PROJECT / "flows" / integration.integration / "sources.yaml"
        named = f"what [`sources.yaml`](../{sources.relative_to(PROJECT)}) names"
        listeners = named if sources.exists() else ""
        if gateway or worker or listeners:
            yield [integration.integration, ", ".join(gateway), ", ".join(worker), listeners]


def _blocks(declared: Sequence[IntegrationDeclaration]) -> Iterator[list[str]]:
    for slug in sorted({slug for each in declared for slug in each.blocks}):
        users = [f"`{each.integration}`" for each in declared if slug in each.blocks]
        yield [f"`{slug}`", ", ".join(users)]


def _events(declared: Sequence[IntegrationDeclaration]) -> Iterator[list[str]]:
    for integration in declared:
        for each in integration.registrations.values():
            if each.connection == _APPLICATION:
                events = ", ".join(f"`{event}`" for event in each.events)
                yield [f"`{integration.integration}`", events]


_Rows = Callable[[Sequence[IntegrationDeclaration]], Iterator[list[str]]]
TABLES: dict[str, tuple[list[str], _Rows]] = {
    "integrations": (["integration", "pattern", "what it does"], _integrations),
    "deployments": (["deployment", "integration", "starts"], _deployments),
    "endpoints": (["endpoint", "path", "scheme", "feeds"], _endpoints),
    "variables": (
        ["integration", "gateway", "worker, and `deployments.activate`", "listeners"],
        _variables,
    ),
    "blocks": (["block", "used by"], _blocks),
    "events": (["subscriber", "events"], _events),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the pages that are stale; with --check say which, and return 1 if there are any."""
    parser = argparse.ArgumentParser(
        prog="python -m deployments.documents", description="Write the tables of the guides."
    )
    parser.add_argument("--check", action="store_true", help="write nothing; 1 if any is stale")
    options = parser.parse_args(arguments)
    try:
        stale = stale_pages()
    except IntegrationError as error:
        print(error, file=sys.stderr)
        return 1
    for path, text in stale.items():
        if options.check:
            print(f"{path.relative_to(PROJECT)}: its tables are stale; run make docs")
        else:
            path.write_text(text)
            print(f"{path.relative_to(PROJECT)}: written")
    return int(options.check and bool(stale))


def _rank(declared: IntegrationDeclaration) -> tuple[bool, str, str]:
    """By pattern, what operates the others last."""
    operates = declared.pattern in ("operations", "deploy-time flow")
    return (operates, declared.pattern, declared.integration)


if __name__ == "__main__":
    sys.exit(main())
