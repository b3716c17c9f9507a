"""Where a report goes: into folders, by e-mail, by text message."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class FolderDestination(BaseModel):
    """A folder on a server, in a cloud, or on this machine."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="Folder")

    kind: Literal["folder"] = "folder"
    block: str = Field(
        description=(
            "Block of the place, as type/name: local-folder/…, sftp-server/…, "
            "s3-bucket-of-files/…, dropbox-account/…, google-drive-account/… or azure-file-share/…."
        )
    )
    folder: str = Field(default="", description="Folder there, from the block's root.")
    existing: Literal["fail", "overwrite"] = Field(
        default="fail",
        description="What to do about a file of that name which is not this report's.",
    )
    link_base_url: str | None = Field(
        default=None,
        pattern=r"^https?://[^?#]+$",
        description="Where people find the folder's files in a browser, for links to them.",
    )

    @property
    def name(self) -> str:
        """What tells this destination from others."""
        return f"{self.block}:{self.folder.strip('/')}"


class MailDestination(BaseModel):
    """An e-mail with the file, or with a link to it when it is too large."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="E-mail")

    kind: Literal["mail"] = "mail"
    block: str = Field(description="Block of the mail server, as mail-server/name.")
    to: tuple[str, ...] = Field(min_length=1, description="Addresses; all see each other.")
    subject: str = Field(
        default="{title}, {period}", description="With {title}, {period}, {rows}, {name}."
    )
    text: str = Field(
        default="", description="What stands above the totals, with the fields of the subject."
    )
    attach: bool = Field(default=True, description="Send the file itself if it is small enough.")

    @property
    def name(self) -> str:
        """What tells this destination from others."""
        return f"{self.block}:{','.join(sorted(self.to))}"


class SmsDestination(BaseModel):
    """A text message with a link to the file in the first folder that has it."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="Text message")

    kind: Literal["sms"] = "sms"
    block: str = Field(description="Block of the account, as sms-account/name.")
    to: str = Field(pattern=r"^\+[1-9]\d{6,14}$", description="Number, e.g. +4915112345678.")
    text: str = Field(
        default="{title}, {period}: {rows} rows.",
        description="With {title}, {period}, {rows}, {name}; the link is added.",
    )
    max_segments: int = Field(
        default=2, ge=1, le=10, description="Paid parts of 160 characters, or 70 beyond Latin."
    )

    @property
    def name(self) -> str:
        """What tells this destination from others."""
        return f"{self.block}:{self.to}"


Destination = Annotated[
    FolderDestination | MailDestination | SmsDestination, Field(discriminator="kind")
]
