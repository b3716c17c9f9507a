"""Loads the block that a parameter names, or says how to create it."""

from __future__ import annotations

from typing import TypeVar

from prefect.blocks.core import Block
from prefect.exceptions import ObjectNotFound
from pydantic import ValidationError

from blocks.errors import MisconfiguredError

B = TypeVar("B", bound=Block)


async def load_connection(slug: str, *kinds: type[B]) -> B:
    """Load a block by its slug.

    Args:
        slug: Block type and name, e.g. "sftp-server/warehouse".
        kinds: The accepted block types.

    Raises:
        MisconfiguredError: There is none with that name, it has another type, or its type
            refuses its fields.
    """
    known = {kind.get_block_type_slug(): kind for kind in kinds}
    type_slug, _, name = slug.partition("/")
    if type_slug not in known or not name:
        raise MisconfiguredError(
            f"write the block as type/name, where the type is one of {', '.join(sorted(known))}",
            system="Prefect",
            operation="load block",
            record=slug,
        )
    kind = known[type_slug]
    try:
        return await kind.aload(name, validate=True)
    except RuntimeError as exc:
        if not isinstance(exc.__cause__, ValidationError):
            raise
        problems = told_without_values(exc.__cause__)
        raise MisconfiguredError(
            f"the block does not fit its type ({problems}); mend it in the Prefect UI under Blocks",
            system="Prefect",
            operation="load block",
            record=slug,
        ) from None  # the original may repeat the values, secrets among them
    except ValueError as exc:
        if not isinstance(exc.__cause__, ObjectNotFound):
            raise
        raise MisconfiguredError(
            "there is no such block; make it in the Prefect UI under Blocks, or with "
            "python -m deployments.register_blocks FILE",
            system="Prefect",
            operation="load block",
            record=slug,
        ) from exc


def told_without_values(error: ValidationError) -> str:
    """Return what is wrong with a block's fields, without their values, which hold secrets."""
    problems = []
    for each in error.errors(include_url=False, include_input=False, include_context=False):
        message = each["msg"].removeprefix("Value error, ")
        where = ".".join(map(str, each["loc"]))
        problems.append(f"{where}: {message}" if where else message)
    return "; ".join(problems)
