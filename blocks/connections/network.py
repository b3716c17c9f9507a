"""What connections over TCP have in common: TLS that is on and verified, and missing clients."""

from __future__ import annotations

import ssl
from functools import lru_cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from blocks.errors import MisconfiguredError


class TlsSettings(BaseModel):
    """Encryption and mutual proof of who is who."""

    model_config = ConfigDict(hide_input_in_errors=True)

    tls: bool = Field(
        default=True,
        description=(
            "Encrypt the connection. WARNING: without, whoever is on the way can read and change "
            "everything, the password too."
        ),
    )
    ca_file: Path | None = Field(
        default=None,
        description="PEM file of the authorities to trust instead of the public ones.",
    )
    certificate_file: Path | None = Field(
        default=None, description="PEM file with the certificate by which we prove who we are."
    )
    key_file: Path | None = Field(
        default=None, description="PEM file with the private key of that certificate."
    )

    def tls_context(self, system: str) -> ssl.SSLContext | None:
        """The context for the client, or None when TLS is off.

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
    """The context of HTTP clients that trust the public authorities.

    Loading them takes tens of milliseconds: once a process is enough.
    """
    import httpx  # what listens to brokers only does not need it

    return httpx.create_ssl_context()


def not_installed(package: str, *, extra: str, system: str) -> MisconfiguredError:
    """The error for a client library that this environment lacks."""
    return MisconfiguredError(
        f"the client library {package} is not installed; install it: make install EXTRAS={extra}",
        system=system,
        operation="connect",
    )
