"""A Twilio account that sends text messages, and the sender's number."""

from __future__ import annotations

import httpx
from prefect.blocks.core import Block
from pydantic import ConfigDict, Field, SecretStr

from blocks.connections.network import public_authorities


class SmsAccount(Block):
    """A Twilio account that sends text messages.

    Create an API key in the Twilio console under Account, API keys: it can be revoked on its own.
    The account's SID and auth token work too.

    Example:
        Send a text message:
        ```python
        from blocks.sms_account import SmsAccount
        from tasks.core.connectors.sms import TextMessage, send_sms

        account = SmsAccount.load("BLOCK_NAME")
        message = TextMessage("+4915112345678", "The report is there.")
        with account.get_client() as client:
            send_sms(client, message, sender=account.sender, system=account.system)
        ```
    """

    _block_type_name = "SMS Account"
    _block_type_slug = "sms-account"
    _description = "A Twilio account that sends text messages."

    model_config = ConfigDict(hide_input_in_errors=True)

    account_sid: str = Field(
        pattern=r"^AC[0-9a-f]{32}$", description="The account's SID, starting with AC."
    )
    key_sid: str | None = Field(
        default=None,
        pattern=r"^SK[0-9a-f]{32}$",
        description="SID of the API key, starting with SK; empty to use the account's token.",
    )
    secret: SecretStr = Field(description="Secret of the API key, or the account's auth token.")
    sender: str = Field(
        pattern=r"^(\+[1-9]\d{6,14}|MG[0-9a-f]{32}|[A-Za-z0-9 ]{1,11})$",
        description="Sender's number (+49…), messaging service SID (MG…) or sender name.",
    )
    base_url: str = Field(
        default="https://api.twilio.com",
        pattern=r"^https?://[^/@?#]+$",
        description="Address of the API; change it for another region or a stand-in.",
    )
    timeout_s: float = Field(
        default=30, gt=0, description="Seconds of silence before a request times out."
    )

    @property
    def system(self) -> str:
        """Name of this account in errors."""
        return self.base_url

    def get_client(self) -> httpx.Client:
        """Return a client whose paths start at the account."""
        return httpx.Client(
            base_url=f"{self.base_url}/2010-04-01/Accounts/{self.account_sid}/",
            verify=public_authorities(),
            auth=(self.key_sid or self.account_sid, self.secret.get_secret_value()),
            timeout=httpx.Timeout(self.timeout_s, connect=10),
        )
