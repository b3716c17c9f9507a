"""The mailbox adapter against Dovecot, a real IMAP server, and against servers that can less."""

from __future__ import annotations

import imaplib
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

from sandbox.systems.order_mail import order_mail

CONFIG = """
protocols = imap
base_dir = {root}/run
log_path = {root}/dovecot.log
ssl = no
disable_plaintext_auth = no
mail_location = maildir:{root}/mail/%u
mail_uid = mail
mail_gid = mail
first_valid_uid = 1
passdb {{
  driver = static
  args = password=sandbox
}}
userdb {{
  driver = static
  args = uid=mail gid=mail home={root}/mail/%u
}}
service imap-login {{
  inet_listener imap {{
    address = 127.0.0.1
    port = {port}
  }}
}}
"""


@pytest.fixture
def dovecot(tmp_path_factory):
    """The port of a Dovecot with one empty mailbox."""
    program = shutil.which("dovecot", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None or os.geteuid() != 0:
        if os.environ.get("CI"):
            raise RuntimeError("dovecot-imapd is not installed, or the tests are not run by root")
        pytest.skip("no dovecot (apt-get install dovecot-imapd), or not root")
    root = Path("/tmp") / f"dovecot-{os.getpid()}"  # its sockets want a short path for others
    root.mkdir(mode=0o755)
    (root / "mail").mkdir()
    shutil.chown(root / "mail", "mail", "mail")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    config = root / "dovecot.conf"
    config.write_text(CONFIG.format(root=root, port=port))
    process = subprocess.Popen([program, "-F", "-c", str(config)])
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except OSError:
            time.sleep(0.05)
    yield port
    process.terminate()
    process.wait(10)
    shutil.rmtree(root)


def declaration(port):
    login = {"username": "orders", "password": "sandbox"}
    return {
        "kind": "imap",
        "connection": {"host": "127.0.0.1", "port": port, "tls": False, **login},
        "senders": ["@partner.example"],
        "archive_folder": "Verarbeitet für später",
    }


def deliver(port, raw):
    with imaplib.IMAP4("127.0.0.1", port) as client:
        client.login("orders", "sandbox")
        client.append("INBOX", None, None, raw)


async def test_mails_are_taken_as_they_come_and_moved(dovecot, listening, inbox, eventually):
    """Waiting mails and one that comes while idling are stored once and moved to the archive."""
    for number in range(5):
        deliver(dovecot, order_mail(b'{"n": %d}' % number))
    deliver(dovecot, order_mail(b"{}", sender="stranger@elsewhere.example"))
    async with listening(declaration(dovecot)) as listeners:
        await eventually(inbox.count, 5)
        [status] = listeners.statuses
        await eventually(lambda: status.counts["refused"], 1)
        deliver(dovecot, order_mail(b'{"n": 5}'))
        await eventually(inbox.count, 6)
        await eventually(lambda: status.counts["new"], 6)
    with imaplib.IMAP4("127.0.0.1", dovecot) as client:
        client.login("orders", "sandbox")
        folders = ("INBOX", "Refused", '"Verarbeitet f&APw-r sp&AOQ-ter"')
        counts = [int(client.select(folder)[1][0]) for folder in folders]
    assert counts == [0, 1, 6]


@pytest.mark.parametrize("lacking", ["IDLE", "MOVE"])
async def test_a_server_that_can_less_is_served_as_well(
    lacking, mailbox, listening, inbox, eventually
):
    """Without IDLE the folder is looked at now and then, without MOVE mails are copied."""
    mailbox.capabilities.remove(lacking)
    fields = declaration(mailbox.port) | {"poll_s": 0.2}
    async with listening(fields):
        mailbox.deliver(order_mail(b"{}"))
        await eventually(inbox.count, 1)
        await eventually(lambda: mailbox.count("INBOX"), 0)
