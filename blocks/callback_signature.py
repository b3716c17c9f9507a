"""The secret that signs results sent to callback addresses."""

from __future__ import annotations

from prefect.blocks.core import Block
from pydantic import ConfigDict, Field, SecretStr


class CallbackSignature(Block):
    """The secret that signs what is sent to callback addresses; receivers know it too.

    Example:
        Give two secrets while receivers change from the old one to the new one:
        ```python
        from blocks.callback_signature import CallbackSignature

        signature = CallbackSignature.load("BLOCK_NAME")
        secrets = [each.get_secret_value() for each in signature.secrets]
        ```
    """

    _block_type_name = "Callback signature"
    _block_type_slug = "callback-signature"
    _description = "The secret that signs results sent to callback addresses."

    model_config = ConfigDict(hide_input_in_errors=True)

    secrets: list[SecretStr] = Field(
        min_length=1,
        description=(
            "Base64, with or without a whsec_ prefix, as in https://www.standardwebhooks.com; "
            "each one signs."
        ),
    )
    timeout_s: float = Field(
        default=15, gt=0, description="Seconds of silence before a callback times out."
    )
