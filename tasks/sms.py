"""Tasks that send text messages."""

from __future__ import annotations

from datetime import datetime

from prefect import task
from prefect.cache_policies import NO_CACHE

from blocks.sms_account import SmsAccount
from tasks.api import is_transient
from tasks.core.connectors import sms as plain
from tasks.core.connectors.sms import SentText, TextMessage
from tasks.core.threads import in_thread

__all__ = ["SentText", "TextMessage", "hand_over", "send_sms"]


@task(task_run_name="send text message", cache_policy=NO_CACHE, retry_condition_fn=is_transient)
async def send_sms(
    account: SmsAccount, message: TextMessage, *, look_since_at: datetime | None = None
) -> SentText:
    """Send one text message.

    Args:
        account: The account, with the sender's number.
        message: The message; `tasks.core.connectors.sms.sms_text` makes it short, with its link.
        look_since_at: First check whether the same text went to the same number since then.

    Raises:
        IntegrationError: As in `tasks.core.connectors.sms.send_sms`.
    """
    return await in_thread(hand_over, account, message, look_since_at=look_since_at)


def hand_over(
    account: SmsAccount, message: TextMessage, *, look_since_at: datetime | None = None
) -> SentText:
    """Send one text message, like `send_sms`, for use in other tasks."""
    with account.get_client() as client:
        return plain.send_sms(
            client,
            message,
            sender=account.sender,
            system=account.system,
            look_since_at=look_since_at,
        )
