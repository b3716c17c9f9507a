"""E-mail and text messages as tasks that any flow can use."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from sandbox.systems import mail_server, twilio_api
from tasks.core.connectors.sms import TextMessage
from tasks.core.connectors.smtp import Mail
from tasks.mail import send_mail
from tasks.sms import send_sms


def test_a_mail_goes_by_its_block(tmp_path):
    """Server, login, sender and size limit are the block's."""
    with mail_server.start(tmp_path) as server:
        mail = Mail(to=("boss@example.org",), subject="Hello", text="World", key="k1")
        sent = asyncio.run(send_mail.fn(server.block(), mail))
    assert server.messages[0].message["From"] == "Reports <reports@example.org>"
    assert sent.message_id == "<k1@example.org>"


def test_a_text_message_goes_by_its_block():
    """Account, sender and address are the block's; a second attempt finds the first."""
    message = TextMessage("+4915112345678", "The report is there.")
    with twilio_api.start() as twilio:
        sent = asyncio.run(send_sms.fn(twilio.block(), message))
        hour_ago = datetime.now(UTC) - timedelta(hours=1)
        again = asyncio.run(send_sms.fn(twilio.block(), message, look_since_at=hour_ago))
    assert (again.sid, again.found) == (sent.sid, True)
    assert [kept["body"] for kept in twilio.messages] == [message.text]
