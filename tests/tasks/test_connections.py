"""Blocks as flows load them: what is wrong is told, and never what is secret."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from prefect.blocks.core import Block
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import BlockDocumentCreate
from prefect.client.schemas.objects import BlockDocument, BlockSchema
from pydantic import ValidationError

from blocks.errors import MisconfiguredError
from blocks.local_folder import LocalFolder
from blocks.sql_database import SqlDatabase
from deployments.register_blocks import block_types
from tasks.connections import load_connection, told_without_values

# Prefect's own clients leave sockets to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

SECRET = "hunter2"
BLOCKS = block_types()


def refused_documents(kind: type[Block]) -> Iterator[dict[str, Any]]:
    """Documents that the block type refuses, with the secret wherever it may show."""
    documents: list[dict[str, Any]] = [{name: [[SECRET]] for name in kind.model_fields}]
    for name in kind.model_fields:
        documents.append({name: SECRET})  # what else is required is missing
        documents.append({name: {"kind": "basic", "password": SECRET}})
    for data in documents:
        try:
            kind.model_validate(data)
        except ValidationError:
            yield data


def shown(error: BaseException) -> str:
    """All that a log shows of an error."""
    return "".join(traceback.format_exception(error))


@pytest.mark.parametrize("slug", sorted(BLOCKS))
def test_a_block_that_does_not_validate_shows_no_secret(slug):
    """What Prefect raises when it loads a block repeats nothing of what the block holds."""
    kind = BLOCKS[slug]
    schema = BlockSchema(checksum="sha256:0", block_type_id=uuid4())
    refused = list(refused_documents(kind))
    assert refused
    for data in refused:
        document = BlockDocument(
            name="wrong",
            data=data,
            block_schema_id=uuid4(),
            block_schema=schema,
            block_type_id=uuid4(),
        )
        with pytest.raises(RuntimeError, match="due to failed validation") as caught:
            kind._load_from_block_document(document, validate=True)
        assert SECRET not in shown(caught.value), data
        cause = caught.value.__cause__
        assert isinstance(cause, ValidationError)
        assert SECRET not in told_without_values(cause), data


def test_names_of_secrets_have_values_that_hide():
    """What is called a password, secret, token or key is of a type that does not show itself."""
    words = ("password", "passphrase", "secret", "token", "credentials", "key")
    open_ones = ("app_key", "trust_any_host_key")  # a name, and a switch
    for slug, kind in BLOCKS.items():
        for name, field in kind.model_fields.items():
            if name.rpartition("_")[2] in words and name not in open_ones:
                assert "SecretStr" in str(field.annotation), f"{slug}: {name}"


async def save_unchecked(kind: type[Block], name: str, data: dict[str, Any]) -> str:
    """Save a block as the form in Prefect does: it knows no rule that spans several fields."""
    await kind.aregister_type_and_schema()
    async with get_client() as client:
        await client.create_block_document(
            BlockDocumentCreate(
                name=name,
                data=data,
                block_type_id=kind._block_type_id,
                block_schema_id=kind._block_schema_id,
            )
        )
    return f"{kind.get_block_type_slug()}/{name}"


def test_what_a_block_lacks_is_told(prefect_server):
    """A database's block that was saved without its host ends with the host being asked for."""
    data = {"kind": "postgresql", "database": "shop", "password": SECRET}
    slug = asyncio.run(save_unchecked(SqlDatabase, "no-host", data))
    with pytest.raises(MisconfiguredError, match=r"its type \(give the host") as caught:
        asyncio.run(load_connection(slug, SqlDatabase))
    assert caught.value.record == slug
    assert SECRET not in shown(caught.value)


def test_a_block_of_another_type_or_name_is_told(prefect_server, tmp_path: Path):
    """A slug of another type names those that do; one without a block says how to make it."""
    with pytest.raises(MisconfiguredError, match="the type is one of local-folder"):
        asyncio.run(load_connection("sql-database/shop", LocalFolder))
    with pytest.raises(MisconfiguredError, match="there is no such block; make it in"):
        asyncio.run(load_connection("local-folder/nowhere", LocalFolder))
    LocalFolder(path=tmp_path).save("somewhere", overwrite=True)
    loaded = asyncio.run(load_connection("local-folder/somewhere", LocalFolder))
    assert loaded.path == tmp_path
