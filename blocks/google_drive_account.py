"""A Google Drive folder and the account that may use it."""

from __future__ import annotations

import json
import threading
from collections.abc import Generator
from typing import Any

import httpx
from prefect.blocks.core import Block
from pydantic import ConfigDict, Field, SecretStr

from blocks.connections.network import not_installed, public_authorities
from blocks.errors import MisconfiguredError, UnreachableError, UpstreamFailedError

_TOKEN_URL = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address


class GoogleDriveAccount(Block):
    """A Google Drive folder and the key of a service account or of a user who consented.

    Create a service account in the Google Cloud console, enable the Drive API, create a JSON key,
    and share the folder with the account's address as editor. A folder of a shared drive is best:
    a service account has no storage of its own.

    Example:
        List the files of a folder:
        ```python
        from blocks.google_drive_account import GoogleDriveAccount
        from tasks.core.connectors.folders.google_drive import DriveFiles

        account = GoogleDriveAccount.load("BLOCK_NAME")
        with account.get_client() as client:
            folder = DriveFiles(client, system=account.system, root_id=account.folder_id)
            for file in folder.list_files("reports"):
                print(file.path, file.size, file.modified_at)
        ```
    """

    _block_type_name = "Google Drive Account"
    _block_type_slug = "google-drive-account"
    _description = "A Google Drive folder and the key of an account that may use it."

    model_config = ConfigDict(hide_input_in_errors=True)

    credentials: SecretStr = Field(
        description=(
            "The whole JSON key file of a service account, or the one that `gcloud auth "
            "application-default login` writes for a user."
        )
    )
    folder_id: str = Field(
        default="root",
        pattern=r"^[\w-]+$",
        description="Folder that all paths start from: the last part of its address in a browser.",
    )
    subject: str | None = Field(
        default=None,
        description="User to act for, if the domain allows the service account to.",
    )
    scope: str = Field(
        default="https://www.googleapis.com/auth/drive", description="Scope of the tokens."
    )
    connect_timeout_s: float = Field(
        default=10, gt=0, description="Seconds to wait for a connection."
    )
    read_timeout_s: float = Field(
        default=60, gt=0, description="Seconds of silence before a request times out."
    )
    api_url: str = Field(
        default="https://www.googleapis.com",
        pattern=r"^https?://[^/@?#]+$",
        description="Address of the API; change it only for tests.",
    )

    @property
    def system(self) -> str:
        """Name of this place in errors, e.g. "google-drive://0AbC"."""
        return f"google-drive://{self.folder_id}"

    def get_client(self) -> httpx.Client:
        """Return an API client that fetches and renews its tokens.

        Raises:
            MisconfiguredError: The key is malformed, or the package google-auth is missing.
        """
        return httpx.Client(
            base_url=self.api_url,
            verify=public_authorities(),
            auth=_GoogleTokens(self._credentials(), self.system),
            timeout=httpx.Timeout(self.read_timeout_s, connect=self.connect_timeout_s),
        )

    def _credentials(self) -> Any:
        try:
            from google.oauth2 import credentials, service_account
        except ImportError as exc:
            raise not_installed("google-auth", extra="google-drive", system=self.system) from exc
        of_service: Any = service_account.Credentials
        of_user: Any = credentials.Credentials
        try:
            key = json.loads(self.credentials.get_secret_value())
            if key["type"] == "service_account":
                return of_service.from_service_account_info(
                    key, scopes=[self.scope], subject=self.subject
                )
            if key["type"] == "authorized_user":
                return of_user(
                    None,
                    refresh_token=key["refresh_token"],
                    client_id=key["client_id"],
                    client_secret=key["client_secret"],
                    token_uri=key.get("token_uri", _TOKEN_URL),
                    scopes=[self.scope],
                )
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            # Without the cause: its text may quote the key.
            message = (
                f"the credentials are not a JSON key file ({type(exc).__name__}); paste it whole"
            )
            raise self._misconfigured(message) from None
        raise self._misconfigured(
            "the key has an unknown type; use a service account's or an authorized user's"
        )

    def _misconfigured(self, message: str) -> MisconfiguredError:
        return MisconfiguredError(message, system=self.system, operation="connect")


class _GoogleTokens(httpx.Auth):
    """Adds a token to each request, and a new one when it is refused."""

    requires_response_body = False

    def __init__(self, credentials: Any, system: str) -> None:
        self._credentials = credentials
        self._system = system
        self._lock = threading.Lock()

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Send with a valid token; once more with a new one if the server refuses it."""
        token = self._token(refused=None)
        request.headers["Authorization"] = f"Bearer {token}"
        response = yield request
        if response.status_code == 401:
            request.headers["Authorization"] = f"Bearer {self._token(refused=token)}"
            yield request

    def _token(self, refused: str | None) -> str:
        from google.auth.exceptions import GoogleAuthError, TransportError
        from google.auth.transport.requests import Request

        with self._lock:
            if not self._credentials.valid or self._credentials.token == refused:
                try:
                    self._credentials.refresh(Request())
                except TransportError as exc:
                    raise UnreachableError(
                        "the token endpoint does not respond",
                        system=self._system,
                        operation="fetch token",
                    ) from exc
                except GoogleAuthError as exc:
                    if exc.retryable:
                        raise UpstreamFailedError(
                            "the token endpoint is broken or busy",
                            system=self._system,
                            operation="fetch token",
                        ) from exc
                    raise MisconfiguredError(
                        "Google issues no token: the key was revoked, or is not allowed this scope",
                        system=self._system,
                        operation="fetch token",
                    ) from exc
            return str(self._credentials.token)
