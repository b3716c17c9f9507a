"""A partner's SFTP server, its login and its host keys."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Self

from prefect.blocks.core import Block
from pydantic import ConfigDict, Field, SecretStr, model_validator

from blocks.errors import MisconfiguredError

if TYPE_CHECKING:
    import asyncssh

_PEM = re.compile(r"\s*(-----BEGIN [A-Z0-9 ]+-----)(.*)(-----END [A-Z0-9 ]+-----)\s*")
_PEM_LINE_CHARACTERS = 70
_KEY_TYPES = ("ssh-", "ecdsa-", "sk-")
# Offered after the types in the known hosts, so that an unknown key is reported by name.
_OTHER_HOST_KEY_TYPES = (
    "+ssh-ed25519,ecdsa-sha2-nistp256,ecdsa-sha2-nistp384,ecdsa-sha2-nistp521,"
    "rsa-sha2-512,rsa-sha2-256"
)
# AES in GCM is the fastest by far where the processor has instructions for AES.
_FAST_CIPHERS_FIRST = "^aes256-gcm@openssh.com,aes128-gcm@openssh.com"


class SftpServer(Block):
    """A folder on an SFTP server and its login.

    The server must prove its identity with its host key.

    Example:
        List the files that wait in a folder:
        ```python
        from blocks.sftp_server import SftpServer
        from tasks.folders import open_folder

        partner = SftpServer.load("BLOCK_NAME")
        with open_folder(partner) as folder:
            for file in folder.list_files("incoming"):
                print(file.path, file.size, file.modified_at)
        ```
    """

    _block_type_name = "SFTP Server"
    _block_type_slug = "sftp-server"

    model_config = ConfigDict(hide_input_in_errors=True)

    host: str = Field(description="Name or address of the server, without a port.", min_length=1)
    port: int = Field(default=22, description="Port of the server.", ge=1, le=65535)
    username: str = Field(description="User to log in as.", min_length=1)
    password: SecretStr | None = Field(
        default=None, description="Password of the user; leave empty if a key is enough."
    )
    private_key: SecretStr | None = Field(
        default=None,
        description=(
            "Private key of the user, the whole text of the key file from BEGIN to END; leave "
            "empty if the password is enough."
        ),
    )
    private_key_passphrase: SecretStr | None = Field(
        default=None, description="Passphrase of the private key, if it has one."
    )
    known_hosts: str = Field(
        default="",
        description=(
            "Host keys of the server, as in a known_hosts file or as the bare key "
            "('ssh-ed25519 AAAA...'). Ask the partner for it, or use `ssh-keyscan`."
        ),
    )
    trust_any_host_key: bool = Field(
        default=False,
        description=(
            "Accept any host key. WARNING: anyone on the network path can then read and change "
            "the files and learn the password; for tests only."
        ),
    )
    root_folder: str = Field(
        default=".",
        description="Folder on the server that all paths start from; '.' is where logins start.",
    )
    connect_timeout_s: float = Field(
        default=15.0, description="Seconds to wait for a connection.", gt=0
    )
    login_timeout_s: float = Field(
        default=30.0, description="Seconds to wait for the login to succeed.", gt=0
    )
    read_timeout_s: float = Field(
        default=60.0, description="Seconds of silence before a transfer times out.", gt=0
    )
    keepalive_s: float = Field(
        default=30.0,
        description="Seconds of silence before the server is pinged.",
        gt=0,
    )

    @model_validator(mode="after")
    def _can_log_in(self) -> Self:
        if not self.password and not self.private_key:
            raise ValueError("give a password or a private key")
        return self

    @property
    def system(self) -> str:
        """Name of this place in errors, e.g. "sftp://partner@files.example/outgoing"."""
        port = "" if self.port == 22 else f":{self.port}"
        root = self.root_folder.strip("/")
        path = "" if root in ("", ".") else f"/{root}"
        return f"sftp://{self.username}@{self.host}{port}{path}"

    async def get_client(self) -> asyncssh.SSHClientConnection:
        """Connect and log in.

        Raises:
            MisconfiguredError: The private key or the known hosts cannot be read.
            asyncssh.HostKeyNotVerifiable: Its reason names the key that the server showed.
            asyncssh.Error: The server refused otherwise.
            OSError: No connection, or not in time.
        """
        import asyncssh

        shown: list[asyncssh.SSHKey] = []

        class Witness(asyncssh.SSHClient):  # type: ignore[misc]  # asyncssh is not followed
            """Remembers an unknown host key so that the error can name it."""

            def validate_host_public_key(self, host: str, addr: str, port: int, key: Any) -> bool:
                shown.append(key)
                return False

        try:
            return await asyncssh.connect(
                self.host,
                self.port,
                client_factory=Witness,
                config=None,  # the user's ~/.ssh must not change what a flow does
                username=self.username,
                password=self.password.get_secret_value() if self.password else None,
                client_keys=self._client_keys(),
                agent_path=None,
                known_hosts=None if self.trust_any_host_key else self._known_hosts(),
                server_host_key_algs=_OTHER_HOST_KEY_TYPES,
                connect_timeout=self.connect_timeout_s,
                login_timeout=self.login_timeout_s,
                keepalive_interval=self.keepalive_s,
                encryption_algs=_FAST_CIPHERS_FIRST,
            )
        except asyncssh.HostKeyNotVerifiable as exc:
            if not shown:
                raise
            raise asyncssh.HostKeyNotVerifiable(_describe(shown[0])) from exc

    def _client_keys(self) -> list[asyncssh.SSHKey] | None:
        import asyncssh

        if not self.private_key:
            return None
        passphrase = self.private_key_passphrase
        try:
            key = asyncssh.import_private_key(
                _with_lines(self.private_key.get_secret_value()),
                passphrase.get_secret_value() if passphrase else None,
            )
        except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as exc:
            raise MisconfiguredError(
                f"the private key cannot be read ({exc}); paste the whole key file into the "
                "block, and its passphrase if it has one",
                system=self.system,
                operation="connect",
            ) from exc
        return [key]

    def _known_hosts(self) -> asyncssh.SSHKnownHosts:
        import asyncssh

        pattern = self.host if self.port == 22 else f"[{self.host}]:{self.port}"
        lines = [line.strip() for line in self.known_hosts.splitlines()]
        text = "\n".join(
            f"{pattern} {line}" if line.startswith(_KEY_TYPES) else line for line in lines
        )
        try:
            return asyncssh.import_known_hosts(text)
        except ValueError as exc:
            raise MisconfiguredError(
                f"the block's known hosts cannot be read ({exc}); write lines as in a "
                "known_hosts file, or the bare key",
                system=self.system,
                operation="connect",
            ) from exc


def _describe(key: Any) -> str:
    public = key.export_public_key().decode().split()
    return f"it showed {key.get_fingerprint()}, {public[0]} {public[1]}"


def _with_lines(key: str) -> str:
    """Restore a key's line breaks: one-line form fields drop them."""
    found = _PEM.fullmatch(key)
    if found is None or "\n" in key.strip():
        return key
    begin, body, end = found.groups()
    body = re.sub(r"\s", "", body)
    step = _PEM_LINE_CHARACTERS
    lines = [body[start : start + step] for start in range(0, len(body), step)]
    return "\n".join([begin, *lines, end, ""])
