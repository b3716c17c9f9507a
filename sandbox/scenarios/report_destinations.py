"""The office's mail server, text messages, Google Drive and Azure Files, where reports go."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from sandbox.scenarios import Sandbox
from sandbox.systems import azure_files_api, google_drive_api, mail_server, twilio_api


@contextmanager
def run(sandbox: Sandbox) -> Iterator[None]:
    """Take reports; mails lie as files in the sandbox's folder, below mail/messages."""
    with ExitStack() as running:
        mail = running.enter_context(mail_server.start(sandbox.data / "mail"))
        sandbox.blocks["mail-server/office"] = mail.block()
        twilio = running.enter_context(twilio_api.start())
        sandbox.blocks["sms-account/office"] = twilio.block()
        drive = running.enter_context(google_drive_api.start())
        sandbox.blocks["google-drive-account/office"] = drive.block()
        azure = running.enter_context(azure_files_api.start())
        sandbox.blocks["azure-file-share/office"] = azure.block()
        yield
