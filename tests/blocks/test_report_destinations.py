"""The blocks of mail, text messages, Google Drive and Azure Files."""

from __future__ import annotations

import io
import re
from textwrap import dedent

import pytest
from pydantic import ValidationError

from blocks.azure_file_share import AzureFileShare
from blocks.google_drive_account import GoogleDriveAccount
from blocks.mail_server import MailServer
from blocks.sms_account import SmsAccount
from sandbox.systems import azure_files_api, google_drive_api, mail_server, twilio_api
from tasks.core.connectors.folders.azure_files import AzureFiles
from tasks.core.connectors.folders.google_drive import DriveFiles

SECRET = "hunter2-hunter2"
BLOCKS = [
    MailServer(host="mail.example.org", sender="a@b.c", username="me", password=SECRET),
    SmsAccount(account_sid=f"AC{'0' * 32}", secret=SECRET, sender="+4915112345678"),
    GoogleDriveAccount(credentials=SECRET),
    AzureFileShare(account_name="account", share="share", account_key=SECRET),
    AzureFileShare(account_name="account", share="share", sas_token=f"?sig={SECRET}"),
]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: type(block).__name__)
def test_no_secret_is_shown(block):
    """Neither what people print nor what errors call the system holds a secret."""
    assert SECRET not in f"{block!r} {block} {block.system} {block.model_dump_json()}"


@pytest.mark.parametrize("kind", list(dict.fromkeys(map(type, BLOCKS))), ids=lambda k: k.__name__)
def test_every_field_is_described(kind):
    """The form in the UI explains itself."""
    own = set(kind.__annotations__) & set(kind.model_fields)
    for name in own:
        assert (kind.model_fields[name].description or "").endswith("."), name


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (MailServer, {"host": "x", "sender": "a@b.c", "username": "me"}),
        (MailServer, {"host": "x", "sender": "a@b.c", "username": "me", "password": SECRET,
                      "security": "none"}),
        (SmsAccount, {"account_sid": "0", "secret": SECRET, "sender": "+4915112345678"}),
        (SmsAccount, {"account_sid": f"AC{'0' * 32}", "secret": SECRET, "sender": "a; b"}),
        (SmsAccount, {"account_sid": f"AC{'0' * 32}", "secret": SECRET, "sender": "Reports",
                      "base_url": f"https://me:{SECRET}@api.example"}),
        (GoogleDriveAccount, {"credentials": SECRET, "folder_id": "a' or 'b"}),
        (AzureFileShare, {"account_name": "Account", "share": "share", "account_key": SECRET}),
        (AzureFileShare, {"account_name": "account", "share": "share"}),
    ],
)  # fmt: skip
def test_a_block_that_cannot_work_is_refused_without_quoting(kind, fields):
    """What is missing, unsafe or malformed is said when the block is made."""
    with pytest.raises(ValidationError) as caught:
        kind(**fields)
    assert SECRET not in str(caught.value)


def run_example(kind, block) -> dict:
    example = re.search(r"```python\n(.*)```", kind.get_code_example(), re.DOTALL)
    load = f'{kind.__name__}.load("BLOCK_NAME")'
    assert load in example[1]
    names = {"block": block}
    exec(dedent(example[1]).replace(load, "block"), names)
    return names


def test_the_examples_of_the_docstrings_run(tmp_path, capsys):
    """Each shows the block at work."""
    with mail_server.start(tmp_path) as server:
        run_example(MailServer, server.block())
        assert server.messages[0].message["Subject"] == "Sales"
    with twilio_api.start() as twilio:
        run_example(SmsAccount, twilio.block())
        assert len(twilio.messages) == 1
    with google_drive_api.start() as drive, drive.block().get_client() as client:
        folder = DriveFiles(client, system="x", root_id=drive.root_id)
        folder.put("reports/drive.csv", io.BytesIO(b"x"), size=1)
        run_example(GoogleDriveAccount, drive.block())
    with azure_files_api.start() as azure, azure.block().get_client() as client:
        AzureFiles(client, system="x").put("reports/azure.csv", io.BytesIO(b"x"), size=1)
        run_example(AzureFileShare, azure.block())
    printed = capsys.readouterr().out
    assert "reports/drive.csv 1" in printed
    assert "reports/azure.csv 1" in printed
