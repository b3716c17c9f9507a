"""Puts a pinned uv into `.uv/bin` with nothing but Python's standard library.

Bare Debian has neither pip nor venv, so the wheel is fetched from the package index and unpacked.
The index is the first of UV_DEFAULT_INDEX, UV_INDEX_URL, PIP_INDEX_URL that is set, else PyPI.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import sys
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from pathlib import Path

VERSION = "0.13.9"
PYPI = "https://pypi.org/simple"
TARGET = Path(__file__).parents[1] / ".uv" / "bin" / "uv"


def main() -> None:
    """Install unless this version is there."""
    marker = TARGET.with_name(f"uv-{VERSION}")
    if marker.exists():
        return
    wheel = fetch_wheel()
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".data/scripts/uv"))
        unfinished = TARGET.with_name("uv.part")
        unfinished.write_bytes(archive.read(name))
    unfinished.chmod(0o755)
    unfinished.replace(TARGET)
    marker.touch()


def fetch_wheel() -> bytes:
    """Download the wheel for this machine and check its digest."""
    index = next(
        (os.environ[n] for n in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL")
         if os.environ.get(n)),
        PYPI,
    )  # fmt: skip
    page = f"{index.rstrip('/')}/uv/"
    accept = {"Accept": "application/vnd.pypi.simple.v1+json"}
    try:
        with urllib.request.urlopen(urllib.request.Request(page, headers=accept)) as answer:
            files = json.load(answer)["files"]
        wanted = [f for f in files if fits(f["filename"])]
        if not wanted:
            sys.exit(
                f"there is no uv {VERSION} wheel for {platform.system()} {platform.machine()}; "
                "install uv yourself (https://docs.astral.sh/uv/) and run make again"
            )
        url = urllib.parse.urljoin(page, wanted[0]["url"])
        with urllib.request.urlopen(url) as answer:
            wheel: bytes = answer.read()
    except (urllib.error.URLError, ValueError) as exc:
        sys.exit(
            f"uv could not be fetched from {urllib.parse.urlsplit(index).hostname} ({exc}); "
            "is this machine online? You can also install uv yourself and run make again"
        )
    if hashlib.sha256(wheel).hexdigest() != wanted[0]["hashes"]["sha256"]:
        sys.exit("the fetched uv wheel is damaged; run make again")
    return wheel


def fits(filename: str) -> bool:
    """Whether a wheel is for this version, system and processor."""
    if not filename.startswith(f"uv-{VERSION}-") or not filename.endswith(".whl"):
        return False
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(
        platform.machine().lower(), platform.machine().lower()
    )
    if sys.platform == "darwin":
        return "macosx" in filename and ("arm64" if machine == "aarch64" else machine) in filename
    libc = "musllinux" if platform.libc_ver()[0] != "glibc" else "manylinux"
    return libc in filename and machine in filename


if __name__ == "__main__":
    main()
