"""The blocks of the places that hold files."""

from __future__ import annotations

import io
import json
import re
from functools import cache
from importlib.resources import files
from pathlib import Path
from textwrap import dedent

import pytest
from pydantic import ValidationError

from blocks.dropbox_account import DropboxAccount
from blocks.errors import MisconfiguredError
from blocks.local_folder import LocalFolder
from blocks.s3_bucket import S3Bucket
from blocks.sftp_server import SftpServer
from tasks.folders import open_folder

SECRET = "hunter2-hunter2"
KEY = "-----BEGIN PRIVATE KEY-----\nhunter2-hunter2\n-----END PRIVATE KEY-----\n"
BLOCKS = [
    SftpServer(host="files.example", username="me", password=SECRET),
    SftpServer(host="files.example", username="me", private_key=KEY, private_key_passphrase=SECRET),
    S3Bucket(
        bucket="exchange", access_key_id="AKIA", secret_access_key=SECRET, session_token=SECRET
    ),
    DropboxAccount(app_key="key", app_secret=SECRET, refresh_token=SECRET),
    DropboxAccount(access_token=SECRET),
    LocalFolder(path="/srv/exchange"),
]
KINDS = [SftpServer, S3Bucket, DropboxAccount, LocalFolder]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: type(block).__name__)
def test_no_secret_is_shown(block):
    """Neither what people print nor what errors call the system holds a secret."""
    assert SECRET not in f"{block!r} {block} {block.system} {block.model_dump_json()}"


@pytest.mark.parametrize("kind", KINDS)
def test_the_form_explains_itself(kind):
    """The block and each of its fields have a description, which ends with a period."""
    assert kind.get_description().endswith(".")
    schema = kind.model_json_schema()
    for name, field in schema["properties"].items():
        assert field["description"].endswith("."), name


def test_the_form_hides_secrets():
    """Prefect knows which fields to encrypt and to show as dots."""
    assert SftpServer.model_json_schema()["secret_fields"] == [
        "password",
        "private_key",
        "private_key_passphrase",
    ]
    assert S3Bucket.model_json_schema()["secret_fields"] == ["secret_access_key", "session_token"]
    assert DropboxAccount.model_json_schema()["secret_fields"] == [
        "app_secret",
        "refresh_token",
        "access_token",
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_no_block_type_of_prefect_s_catalogue_is_replaced(kind):
    """Prefect's server registers its integrations' blocks itself; ours have other names."""
    catalogue = json.loads(
        files("prefect.server").joinpath("collection_blocks_data.json").read_text()
    )
    taken = {
        slug
        for collection in catalogue["collections"].values()
        for slug in collection["block_types"]
    }
    assert "s3-bucket" in taken
    assert kind.get_block_type_slug() not in taken
    assert kind._logo_url is None  # an icon would be fetched from the internet


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        (SftpServer, {"host": "h", "username": "u", "private_key_passphrase": SECRET},
         "give a password or a private key"),
        (SftpServer, {"host": "h", "username": "u", "password": ""}, "give a password or"),
        (SftpServer, {"host": "", "username": "u", "password": SECRET}, "at least 1 character"),
        (SftpServer, {"host": "h", "username": "u", "password": SECRET, "port": 0}, "greater than"),
        (S3Bucket, {"bucket": "exchange", "secret_access_key": SECRET}, "give both access key id"),
        (S3Bucket, {"bucket": "exchange", "endpoint_url": "minio:9000"}, "https://host:port"),
        (S3Bucket, {"bucket": "exchange", "endpoint_url": f"https://me:{SECRET}@s3.example"},
         "must not hold credentials"),
        (DropboxAccount, {"refresh_token": SECRET}, "give a refresh token with the app key"),
        (DropboxAccount, {"access_token": SECRET, "api_url": "localhost"}, "http://host:port"),
        (LocalFolder, {"path": "exchange"}, "give the full path"),
    ],
)  # fmt: skip
def test_a_block_that_cannot_work_is_refused_without_quoting(kind, fields, message):
    """What is missing or malformed is said when the block is made, and no secret with it."""
    with pytest.raises(ValidationError, match=re.escape(message)) as caught:
        kind(**fields)
    assert SECRET not in str(caught.value)


def test_fields_that_were_emptied_in_the_form_count_as_empty():
    """The form sends "" for a field that was cleared."""
    bucket = S3Bucket(
        bucket="exchange", access_key_id="", secret_access_key="", endpoint_url="", region=""
    )
    assert bucket.get_client().meta.endpoint_url == "https://s3.amazonaws.com"
    account = DropboxAccount(access_token=SECRET, app_key="", app_secret="", api_url="")
    account.get_client().close()
    server = SftpServer(host="h", username="u", password=SECRET, private_key="")
    assert server.system == "sftp://u@h"


@pytest.mark.parametrize(
    ("block", "system"),
    [
        (BLOCKS[0], "sftp://me@files.example"),
        (SftpServer(host="h", port=2222, username="u", password="p", root_folder="/out/"),
         "sftp://u@h:2222/out"),
        (S3Bucket(bucket="exchange"), "s3://exchange"),
        (S3Bucket(bucket="exchange", prefix="/a/b/", endpoint_url="http://minio:9000"),
         "s3://minio:9000/exchange/a/b"),
        (BLOCKS[3], "dropbox://key"),
        (DropboxAccount(access_token="t", root_folder="/Partners/"), "dropbox://account/Partners"),
        (BLOCKS[5], "file:///srv/exchange"),
    ],
)  # fmt: skip
def test_a_system_is_called_by_where_it_is(block, system):
    """Errors and ledgers tell two places apart."""
    assert block.system == system


async def test_a_private_key_that_is_none(sftp_server):
    """The message says what to paste, and does not repeat it."""
    for key, passphrase in ((KEY, None), ("hunter2-hunter2", None), (sftp_key(), "wrong")):
        block = sftp_server.block(private_key=key, private_key_passphrase=passphrase)
        with pytest.raises(MisconfiguredError, match=r"private key cannot be read .*paste the"):
            await block.get_client()


async def test_an_encrypted_key_that_lost_its_lines(sftp_server):
    """A one-line form field drops line breaks; with its passphrase the key still is read."""
    block = sftp_server.block(private_key=sftp_key().replace("\n", ""), private_key_passphrase="x")
    async with await block.get_client() as connection:  # the server lets in by the password
        assert connection.get_extra_info("username") == "partner"


async def test_known_hosts_that_are_none(sftp_server):
    """The message says what belongs there."""
    block = sftp_server.block(known_hosts="SHA256:a-fingerprint")
    with pytest.raises(MisconfiguredError, match=r"known hosts cannot be read .*or the bare key"):
        await block.get_client()


@pytest.mark.parametrize("kind", ["sftp", "s3", "dropbox", "local"])
def test_the_examples_of_the_docstrings_run(kind, request, capsys, tmp_path):
    """Each shows the block at work."""
    if kind == "local":
        block = LocalFolder(path=tmp_path)
    elif kind == "s3":
        block = request.getfixturevalue("s3_server").block("exchange")
    elif kind == "sftp":
        block = request.getfixturevalue("sftp_server").block()
    else:
        block = request.getfixturevalue("dropbox_api").block()
    with open_folder(block) as folder:
        folder.put("incoming/stock.csv", io.BytesIO(b"sku"), size=3)
    name = type(block).__name__
    example = re.search(r"```python\n(.*)```", type(block).get_code_example(), re.DOTALL)
    load = f'{name}.load("BLOCK_NAME")'
    assert f"from {type(block).__module__} import {name}" in example[1]
    assert load in example[1]
    exec(dedent(example[1]).replace(load, "block"), {"block": block})
    assert capsys.readouterr().out.startswith("incoming/stock.csv 3 20")


@cache
def sftp_key() -> str:
    """A new key with the passphrase "x"."""
    import asyncssh

    key = asyncssh.generate_private_key("ssh-ed25519")
    return key.export_private_key("pkcs8-pem", passphrase="x").decode()


def test_a_local_folder_is_just_its_path():
    """There is nothing to connect to."""
    assert LocalFolder(path="/srv").get_client() == Path("/srv")
