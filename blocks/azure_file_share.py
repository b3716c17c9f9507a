"""An Azure file share and the key for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from prefect.blocks.core import Block
from pydantic import ConfigDict, Field, SecretStr, model_validator

from blocks.connections.network import not_installed

if TYPE_CHECKING:
    from azure.storage.fileshare import ShareClient


class AzureFileShare(Block):
    """A folder of an Azure file share, with the account's key or a shared access signature.

    Prefer a shared access signature: it can be limited to this share, to reading, writing and
    listing, and in time.

    Example:
        List the files of a folder:
        ```python
        from blocks.azure_file_share import AzureFileShare
        from tasks.core.connectors.folders.azure_files import AzureFiles

        share = AzureFileShare.load("BLOCK_NAME")
        with share.get_client() as client:
            folder = AzureFiles(client, system=share.system, root=share.root_folder)
            for file in folder.list_files("reports"):
                print(file.path, file.size, file.modified_at)
        ```
    """

    _block_type_name = "Azure File Share"
    _block_type_slug = "azure-file-share"
    _description = "A folder of an Azure file share and the key for it."

    model_config = ConfigDict(hide_input_in_errors=True)

    account_name: str = Field(
        pattern=r"^[a-z0-9]{3,24}$", description="Name of the storage account."
    )
    share: str = Field(
        pattern=r"^[a-z0-9](-?[a-z0-9])+$", description="Name of the share, in lower case."
    )
    sas_token: SecretStr | None = Field(
        default=None, description="Shared access signature, with or without its question mark."
    )
    account_key: SecretStr | None = Field(
        default=None, description="Key of the account, if there is no shared access signature."
    )
    root_folder: str = Field(
        default="", description="Folder of the share that all paths start from, e.g. 'reports'."
    )
    connect_timeout_s: float = Field(
        default=10, gt=0, description="Seconds to wait for a connection."
    )
    read_timeout_s: float = Field(
        default=60, gt=0, description="Seconds of silence before a request times out."
    )
    endpoint_url: str | None = Field(
        default=None,
        pattern=r"^https?://[^@?#]+$",
        description="Address of the account in another cloud or of a stand-in; otherwise empty.",
    )

    @model_validator(mode="after")
    def _has_a_key(self) -> Self:
        if (self.sas_token is None) == (self.account_key is None):
            raise ValueError("give either a shared access signature or the account's key")
        return self

    @property
    def system(self) -> str:
        """Name of this place in errors, e.g. "azure-files://account/share"."""
        root = self.root_folder.strip("/")
        return f"azure-files://{self.account_name}/{self.share}" + (f"/{root}" if root else "")

    def get_client(self) -> ShareClient:
        """Build the client without connecting; it never retries by itself.

        Raises:
            MisconfiguredError: The package azure-storage-file-share is missing.
        """
        try:
            from azure.storage.fileshare import ShareClient
        except ImportError as exc:
            raise not_installed(
                "azure-storage-file-share", extra="azure-files", system=self.system
            ) from exc
        return ShareClient(
            self.endpoint_url or f"https://{self.account_name}.file.core.windows.net",
            self.share,
            credential=self._credential(),
            retry_total=0,
            connection_timeout=self.connect_timeout_s,
            read_timeout=self.read_timeout_s,
            # Downloads fetch this much at a time.
            max_single_get_size=4 * 1024 * 1024,
            max_chunk_get_size=4 * 1024 * 1024,
        )

    def _credential(self) -> Any:
        if self.sas_token is not None:
            return self.sas_token.get_secret_value().lstrip("?")
        assert self.account_key is not None  # noqa: S101 (the validator checks it)
        return {
            "account_name": self.account_name,
            "account_key": self.account_key.get_secret_value(),
        }
