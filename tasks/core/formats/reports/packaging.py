"""Zips a finished file or encrypts it with OpenPGP, in constant memory."""

from __future__ import annotations

import shutil
import zipfile
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from blocks.errors import MisconfiguredError


class ZipPackage(BaseModel):
    """One compressed file in a ZIP archive."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["zip"] = "zip"

    @property
    def extension(self) -> str:
        """The extension added to the file's name."""
        return ".zip"

    @property
    def media_type(self) -> str:
        """As registered with IANA."""
        return "application/zip"


class PgpPackage(BaseModel):
    """An OpenPGP message that only the holders of the private keys can read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["pgp"] = "pgp"
    recipients: tuple[str, ...] = Field(
        min_length=1,
        description="Armoured public keys, starting with -----BEGIN PGP PUBLIC KEY.",
    )
    armour: bool = Field(default=False, description="Write text instead of bytes.")

    @property
    def extension(self) -> str:
        """The extension added to the file's name."""
        return ".asc" if self.armour else ".pgp"

    @property
    def media_type(self) -> str:
        """Source: RFC 3156."""
        return "application/pgp-encrypted"


Package = Annotated[ZipPackage | PgpPackage, Field(discriminator="kind", title="Package")]


def pack(source: Path, target: Path, package: Package, *, modified_at: datetime) -> None:
    """Write `source` to `target` as the package says.

    Args:
        source: Its name is the name in the archive.
        target: Replaced if it exists.
        package: How to pack it.
        modified_at: Time in the archive, so that the same file yields the same archive.

    Raises:
        MisconfiguredError: A public key is invalid or cannot encrypt, or the library is missing.
    """
    if isinstance(package, ZipPackage):
        _zip(source, target, modified_at)
    else:
        _encrypt(source, target, package)


def _zip(source: Path, target: Path, modified_at: datetime) -> None:
    entry = zipfile.ZipInfo(source.name, modified_at.timetuple()[:6])
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    entry.file_size = source.stat().st_size  # lets zipfile choose ZIP64 before it starts
    with (
        zipfile.ZipFile(target, "w") as archive,
        source.open("rb") as content,
        archive.open(entry, "w") as packed,
    ):
        shutil.copyfileobj(content, packed, 1 << 20)


def _encrypt(source: Path, target: Path, package: PgpPackage) -> None:
    try:
        import pysequoia
    except ImportError as exc:
        raise MisconfiguredError(
            "pysequoia is not installed; install it: make install EXTRAS=pgp",
            system="report",
            operation="encrypt",
        ) from exc
    if any("PRIVATE KEY" in key for key in package.recipients):
        raise MisconfiguredError(
            "a recipient's key is a private key: take it out and give the public one",
            system="report",
            operation="encrypt",
            record=source.name,
        )
    try:
        keys = [pysequoia.Cert.from_bytes(key.encode()) for key in package.recipients]
        pysequoia.encrypt_file(source, target, recipients=keys, armor=package.armour)
    except Exception as exc:  # the library raises bare exceptions of its own
        target.unlink(missing_ok=True)
        raise MisconfiguredError(
            "a recipient's public key cannot encrypt: it is damaged, expired or only for signing; "
            "ask for a new one",
            system="report",
            operation="encrypt",
            record=source.name,
        ) from exc
