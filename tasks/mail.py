"""Tasks that send e-mail."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from blocks.mail_server import MailServer
from tasks.api import is_transient
from tasks.core.connectors import smtp as plain
from tasks.core.connectors.smtp import Mail, SentMail
from tasks.core.threads import in_thread

__all__ = ["Mail", "SentMail", "hand_in", "send_mail"]


@task(task_run_name="mail {mail.subject}", cache_policy=NO_CACHE, retry_condition_fn=is_transient)
async def send_mail(server: MailServer, mail: Mail) -> SentMail:
    """Send one message to all its recipients or to none.

    Args:
        server: The server, with the sender's address.
        mail: The message. Give it a key that is the same in every attempt: a second copy then has
            the same Message-ID, and mail systems drop it.

    Raises:
        IntegrationError: As in `tasks.core.connectors.smtp.send_mail`.
    """
    return await in_thread(hand_in, server, mail)


def hand_in(server: MailServer, mail: Mail) -> SentMail:
    """Send one message, like `send_mail`, for use in other tasks."""
    return plain.send_mail(
        server.get_client,
        mail,
        sender=server.sender,
        system=server.system,
        sender_name=server.sender_name,
        max_message_bytes=server.max_message_bytes,
    )
