"""Zipped and encrypted files."""

from __future__ import annotations

import shutil
import subprocess
import zipfile
from datetime import UTC, datetime

import pysequoia
import pytest

from blocks.errors import MisconfiguredError
from tasks.core.formats.reports.packaging import PgpPackage, ZipPackage, pack

AT = datetime(2026, 7, 23, 17, tzinfo=UTC)


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "Umsätze.csv"
    path.write_bytes(b"a,b\r\n" * 100_000)
    return path


def key(user: str = "Partner <partner@example.org>") -> pysequoia.Tsk:
    return pysequoia.Tsk.generate(user, profile=pysequoia.Profile.RFC4880)


def public(holder: pysequoia.Tsk) -> str:
    return str(holder.extract_certificate())


def test_an_archive_holds_the_file(tmp_path, source):
    """One entry of the file's name, smaller than it was, the same bytes every time."""
    for name in ("a.zip", "b.zip"):
        pack(source, tmp_path / name, ZipPackage(), modified_at=AT)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    assert (tmp_path / "a.zip").stat().st_size < source.stat().st_size / 50
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.testzip() is None
        assert archive.read("Umsätze.csv") == source.read_bytes()


@pytest.mark.parametrize("armour", [True, False])
def test_every_recipient_can_decrypt(tmp_path, source, armour):
    """The holder of either private key reads the file, and the text stands nowhere in clear."""
    keys = [key("a <a@example.org>"), key("b <b@example.org>")]
    package = PgpPackage(recipients=tuple(map(public, keys)), armour=armour)
    pack(source, tmp_path / "r.pgp", package, modified_at=AT)
    encrypted = (tmp_path / "r.pgp").read_bytes()
    assert encrypted.startswith(b"-----BEGIN PGP MESSAGE") is armour
    assert b"a,b\r\na,b" not in encrypted
    for k in keys:
        decrypted = pysequoia.decrypt(encrypted, decryptor=k.decryptor())
        assert decrypted.bytes == source.read_bytes()


@pytest.mark.skipif(shutil.which("gpg") is None, reason="GnuPG is not installed")
def test_gnupg_can_decrypt(tmp_path, source):
    """A key made by GnuPG, as partners have them, gets a message that GnuPG can read."""
    home = tmp_path / "gnupg"
    home.mkdir(mode=0o700)

    def gpg(*arguments: str) -> bytes:
        command = ["gpg", "--homedir", str(home), "--batch", "--quiet", "--passphrase", ""]
        command += ["--pinentry-mode", "loopback", *arguments]
        return subprocess.run(command, check=True, capture_output=True).stdout

    try:
        gpg("--quick-generate-key", "partner@example.org", "future-default")
        package = PgpPackage(recipients=(gpg("--armor", "--export").decode(),))
        pack(source, tmp_path / "r.pgp", package, modified_at=AT)
        decrypted = gpg("--decrypt", str(tmp_path / "r.pgp"))
    finally:
        stop = ["gpgconf", "--homedir", str(home), "--kill", "all"]
        subprocess.run(stop, check=False, capture_output=True)
    assert decrypted == source.read_bytes()


def test_a_private_key_is_refused(tmp_path, source):
    """Somebody pasted the wrong half: it must not be used, nor stay in a configuration."""
    with pytest.raises(MisconfiguredError, match="private key"):
        pack(source, tmp_path / "r.pgp", PgpPackage(recipients=(str(key()),)), modified_at=AT)


@pytest.mark.parametrize(
    "public_key",
    [
        "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nbroken\n-----END PGP PUBLIC KEY BLOCK-----",
        "not a key",
    ],
)
def test_a_damaged_key_is_an_error_that_leaves_no_file(tmp_path, source, public_key):
    """Better no report than one that somebody else can read."""
    with pytest.raises(MisconfiguredError, match="public key"):
        pack(source, tmp_path / "r.pgp", PgpPackage(recipients=(public_key,)), modified_at=AT)
    assert not (tmp_path / "r.pgp").exists()
