"""Uploads one file to Google Drive in a session that resumes where it was interrupted."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Any

import httpx

from blocks.errors import (
    IntegrationError,
    TransientError,
    UnreachableError,
    UpstreamFailedError,
)
from tasks.core.connectors.folders.google_drive_errors import drive_errors, drive_refusal
from tasks.core.connectors.folders.streams import ExactContent, read_fully

_CHUNK_BYTES = 8 * 1024 * 1024  # a multiple of 256 KiB, as the API asks
_MAX_FAILURES = 5  # in a row, without a byte more stored
_FIRST_WAIT_S = 0.5
_PERSISTED = re.compile(r"bytes=0-(\d+)")


class ResumableUpload:
    """Sends content to an open upload session.

    Args:
        client: The API's client.
        session_url: The session's address, which is a secret.
        system: Name of the place in errors.
        path: The file's path, for errors.
        sleep: Waits for that many seconds.

    Source: developers.google.com/drive/api/guides/manage-uploads#resumable.
    """

    def __init__(
        self,
        client: httpx.Client,
        session_url: httpx.URL,
        *,
        system: str,
        path: str,
        sleep: Callable[[float], None],
    ) -> None:
        self._client = client
        self._url = session_url
        self._system = system
        self._path = path
        self._sleep = sleep

    def send(self, content: ExactContent, size: int) -> dict[str, Any]:
        """Send everything; return Drive's description of the stored file.

        Raises:
            TransientError: It failed too often in a row, or what was stored differs.
        """
        digest = hashlib.md5(usedforsecurity=False)
        offset = 0
        chunk = self._next(content, digest)
        failures = 0
        while True:
            try:
                response = self._put(chunk, offset, size)
                stored = self._stored(response)
            except TransientError as exc:
                failures += 1
                if isinstance(exc, _SessionGoneError) or failures >= _MAX_FAILURES:
                    raise
                self._sleep(exc.retry_after_s or _FIRST_WAIT_S * 2 ** (failures - 1))
                response, stored = self._ask(size, offset)
            else:
                failures += 1  # unless there was progress
            if stored is None:
                return self._checked(response.json(), digest.hexdigest(), size)
            if not offset <= stored <= offset + len(chunk):
                raise self._failed(UpstreamFailedError, "it lost what it had confirmed")
            if stored > offset:
                failures = 0
            elif failures >= _MAX_FAILURES:
                raise self._failed(UpstreamFailedError, "it stores nothing more")
            chunk, offset = chunk[stored - offset :], stored
            if not chunk:
                chunk = self._next(content, digest)

    def _next(self, content: ExactContent, digest: Any) -> bytes:
        chunk = read_fully(content, _CHUNK_BYTES)
        digest.update(chunk)
        return chunk

    def _put(self, chunk: bytes, offset: int, size: int) -> httpx.Response:
        span = f"{offset}-{offset + len(chunk) - 1}" if chunk else "*"
        with drive_errors(self._system, "put", self._path):
            return self._client.put(
                self._url, content=chunk, headers={"Content-Range": f"bytes {span}/{size}"}
            )

    def _ask(self, size: int, offset: int) -> tuple[httpx.Response, int | None]:
        """Ask how much is stored; assume no change if there is no response."""
        try:
            with drive_errors(self._system, "put", self._path):
                response = self._client.put(
                    self._url, content=b"", headers={"Content-Range": f"bytes */{size}"}
                )
            return response, self._stored(response)
        except _SessionGoneError:
            raise
        except TransientError:
            return httpx.Response(308), offset

    def _stored(self, response: httpx.Response) -> int | None:
        """Return the number of bytes stored so far, or None if the file is complete."""
        if response.status_code == 308:
            found = _PERSISTED.fullmatch(response.headers.get("range", ""))
            return int(found[1]) + 1 if found else 0
        if response.status_code in (404, 410):
            raise self._failed(_SessionGoneError, "the upload session has ended")
        error = drive_refusal(response, self._system, "put", self._path)
        if error:
            raise error
        return None

    def _checked(self, stored: dict[str, Any], md5: str, size: int) -> dict[str, Any]:
        if stored.get("md5Checksum") != md5 or int(stored.get("size", -1)) != size:
            raise self._failed(UpstreamFailedError, "what arrived is not what was sent")
        return stored

    def _failed(self, kind: type[IntegrationError], message: str) -> IntegrationError:
        return kind(
            f"{message}; the upload starts again at the next attempt",
            system=self._system,
            operation="put",
            record=self._path,
        )


class _SessionGoneError(UnreachableError):
    """The session is gone: only a new one helps."""
