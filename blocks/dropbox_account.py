"""A Dropbox account and the app linked to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from prefect.blocks.core import Block
from pydantic import ConfigDict, Field, SecretStr, field_validator, model_validator

if TYPE_CHECKING:
    import dropbox
    import requests


class DropboxAccount(Block):
    """A folder of a Dropbox account and the app that its owner linked to it.

    Create an app at dropbox.com/developers with the scopes files.metadata.read,
    files.content.read and files.content.write, and have the owner authorise it for offline
    access; that yields the refresh token.

    Example:
        List the files that wait in a folder:
        ```python
        from blocks.dropbox_account import DropboxAccount
        from tasks.folders import open_folder

        account = DropboxAccount.load("BLOCK_NAME")
        with open_folder(account) as folder:
            for file in folder.list_files("incoming"):
                print(file.path, file.size, file.modified_at)
        ```
    """

    _block_type_name = "Dropbox Account"
    _block_type_slug = "dropbox-account"

    model_config = ConfigDict(hide_input_in_errors=True)

    app_key: str | None = Field(
        default=None, description="Key of the app, from the Dropbox app console."
    )
    app_secret: SecretStr | None = Field(
        default=None, description="Secret of the app; leave empty if it was linked with PKCE."
    )
    refresh_token: SecretStr | None = Field(
        default=None, description="Refresh token that the account's owner gave the app."
    )
    access_token: SecretStr | None = Field(
        default=None,
        description="Access token for a first try; it expires after four hours.",
    )
    root_folder: str = Field(
        default="",
        description="Folder of the account that all paths start from, e.g. '/Partners/Acme'.",
    )
    connect_timeout_s: float = Field(
        default=10.0, description="Seconds to wait for a connection.", gt=0
    )
    read_timeout_s: float = Field(
        default=60.0, description="Seconds of silence before a request times out.", gt=0
    )
    api_url: str | None = Field(
        default=None,
        description="Address of a stand-in for tests, as http://host:port; leave empty.",
    )

    @field_validator("api_url")
    @classmethod
    def _is_plain_address(cls, value: str | None) -> str | None:
        if not value:  # an emptied field of the form
            return None
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
            raise ValueError("write the address as http://host:port")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _has_tokens(self) -> Self:
        if not self.access_token and not (self.refresh_token and self.app_key):
            raise ValueError("give a refresh token with the app key, or an access token")
        return self

    @property
    def system(self) -> str:
        """Name of this place in errors, e.g. "dropbox://acme-account/Partners"."""
        root = self.root_folder.strip("/")
        name = self._block_document_name or self.app_key or "account"
        return f"dropbox://{name}" + (f"/{root}" if root else "")

    def get_client(self) -> dropbox.Dropbox:
        """Build the client without connecting; it never retries by itself."""
        import dropbox

        def plain(secret: SecretStr | None) -> str | None:
            return secret.get_secret_value() if secret else None

        return dropbox.Dropbox(
            oauth2_access_token=plain(self.access_token),
            oauth2_refresh_token=plain(self.refresh_token),
            app_key=self.app_key or None,
            app_secret=plain(self.app_secret),
            max_retries_on_error=0,
            max_retries_on_rate_limit=0,
            timeout=(self.connect_timeout_s, self.read_timeout_s),
            session=_session_to(self.api_url) if self.api_url else None,
        )


def _session_to(api_url: str) -> requests.Session:
    """Return a session that sends requests for any Dropbox host to `api_url`."""
    import requests
    from requests.adapters import HTTPAdapter

    class StandIn(HTTPAdapter):
        def send(
            self, request: requests.PreparedRequest, *args: Any, **kwargs: Any
        ) -> requests.Response:
            parts = urlsplit(str(request.url))
            request.url = f"{api_url}{parts.path}"
            return super().send(request, *args, **kwargs)

    session = requests.Session()
    session.mount("https://", StandIn())
    return session
