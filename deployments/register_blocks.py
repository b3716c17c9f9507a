"""Registers the block types with Prefect, and saves block documents from YAML files.

    python -m deployments.register_blocks [FILE …]

A file maps type/name to the block's fields; ${NAME} is an environment variable, so that the file
holds no secrets:

    sftp-server/warehouse:
      host: sftp.partner.example
      username: importer
      password: ${WAREHOUSE_PASSWORD}
"""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from prefect.blocks.core import Block
from pydantic import ValidationError

import blocks
from blocks.errors import IntegrationError, MisconfiguredError
from deployments.prefect_server import require_server
from tasks.connections import told_without_values


def block_types() -> dict[str, type[Block]]:
    """Return the project's own block types by slug."""
    found = {}
    for module_info in pkgutil.iter_modules(blocks.__path__, prefix="blocks."):
        module = importlib.import_module(module_info.name)
        for kind in vars(module).values():
            if isinstance(kind, type) and issubclass(kind, Block) and kind is not Block:
                found[kind.get_block_type_slug()] = kind
    return found


def register_types() -> list[str]:
    """Register every block type; return their slugs, sorted."""
    kinds = block_types()
    for kind in kinds.values():
        kind.register_type_and_schema()
    return sorted(kinds)


def save_blocks(documents: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Create or replace block documents.

    Args:
        documents: Slug (type/name) to the fields of the block.

    Returns:
        The slugs, in the order given.

    Raises:
        MisconfiguredError: An unknown type, or fields that the type refuses.
    """
    kinds = block_types()
    for slug, fields in documents.items():
        type_slug, _, name = slug.partition("/")
        kind = kinds.get(type_slug)
        if kind is None or not name:
            raise MisconfiguredError(
                f"write type/name, where the type is one of {', '.join(sorted(kinds))}",
                system="Prefect",
                operation="save block",
                record=slug,
            )
        try:
            block = kind(**fields)
        except ValidationError as exc:
            raise MisconfiguredError(
                told_without_values(exc), system="Prefect", operation="save block", record=slug
            ) from None  # the original may repeat the values, secrets among them
        block.save(name, overwrite=True)
    return list(documents)


def read_documents(path: Path, environment: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Read block documents from YAML and fill in environment variables.

    Raises:
        MisconfiguredError: The file is not of this form, or a variable is not set.
    """
    try:
        documents = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as exc:
        raise MisconfiguredError(
            f"cannot be read: {exc}", system="Prefect", operation="read blocks", record=str(path)
        ) from exc
    if not isinstance(documents, dict) or not all(isinstance(d, dict) for d in documents.values()):
        raise MisconfiguredError(
            "must map type/name to the fields of a block",
            system="Prefect",
            operation="read blocks",
            record=str(path),
        )
    return {slug: _filled(fields, environment, path) for slug, fields in documents.items()}


def _filled(value: Any, environment: Mapping[str, str], path: Path) -> Any:
    if isinstance(value, dict):
        return {name: _filled(inner, environment, path) for name, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, environment, path) for inner in value]
    if not isinstance(value, str):
        return value

    def look_up(match: re.Match[str]) -> str:
        if match[1] not in environment:
            raise MisconfiguredError(
                f"the environment variable {match[1]} is not set",
                system="Prefect",
                operation="read blocks",
                record=str(path),
            )
        return environment[match[1]]

    return re.sub(r"\$\{(\w+)\}", look_up, value)


def main(arguments: Sequence[str] | None = None) -> int:
    """Register the types and save the named files' documents; return 0 if all went well."""
    parser = argparse.ArgumentParser(
        prog="python -m deployments.register_blocks",
        description="Register the block types with Prefect and save block documents.",
    )
    parser.add_argument("files", nargs="*", type=Path, help="YAML: type/name → fields")
    options = parser.parse_args(arguments)
    try:
        require_server()
        print("block types:", ", ".join(register_types()))
        for file in options.files:
            for slug in save_blocks(read_documents(file, os.environ)):
                print("saved", slug)
    except IntegrationError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
