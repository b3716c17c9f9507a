"""What TCP connections share: TLS settings, and the error for a missing client library."""

from __future__ import annotations

import ssl
from functools import lru_cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from blocks.errors import MisconfiguredError


class TlsSettings(BaseModel):
    """TLS settings: encryption, trusted authorities and a client certificate."""

    model_config = ConfigDict(hide_input_in_errors=True)

    tls: bool = Field(
        default=True,
        description=(
            "Encrypt the connection. WARNING: if off, anyone on the network path can read and "
            "change everything, including the password."
        ),
    )
    ca_file: Path | None = Field(
        default=None,
        description="PEM file of the certificate authorities to trust instead of the public ones.",
    )
    certificate_file: Path | None = Field(
        default=None, description="PEM file with our client certificate."
    )
    key_file: Path | None = Field(
        default=None, description="PEM file with the private key of that certificate."
    )

    def tls_context(self, system: str) -> ssl.SSLContext | None:
        """Return the TLS context for the client, or None when TLS is off.

        Raises:
            MisconfiguredError: A file cannot be read.
        """
        if not self.tls:
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            if self.certificate_file is not None:
                context.load_cert_chain(self.certificate_file, self.key_file)
        except OSError as exc:  # ssl.SSLError is one
            raise MisconfiguredError(
                "ca_file, certificate_file or key_file cannot be read as PEM",
                system=system,
                operation="connect",
            ) from exc
        return context


@lru_cache(maxsize=1)
def public_authorities() -> ssl.SSLContext:
    """Return the TLS context of HTTP clients that trust the public authorities.

    It is cached: loading them takes tens of milliseconds.
    """
    import httpx  # broker listeners do not need it

    return httpx.create_ssl_context()


def not_installed(package: str, *, extra: str, system: str) -> MisconfiguredError:
    """Return the error for a client library that is not installed."""
    return MisconfiguredError(
        f"the client library {package} is not installed; install it: make install EXTRAS={extra}",
        system=system,
        operation="connect",
    )
