"""Azure Files on the loopback: shares, directories, ranges and renames, with signed requests."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit
from xml.sax.saxutils import escape

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sandbox.systems.stand_in import StandIn
from sandbox.systems.web_server import CutAnswer, WebServer

if TYPE_CHECKING:
    from blocks.azure_file_share import AzureFileShare

_ACCOUNT = "sandbox"
_PAGE = 1000
_RANGE_BYTES = 4 * 1024 * 1024
_INVALID = re.compile(r'["\\:|<>*?\x00-\x1f\x7f]')
_SIGNED_HEADERS = (
    "content-encoding", "content-language", "content-length", "content-md5", "content-type",
    "date", "if-modified-since", "if-match", "if-none-match", "if-unmodified-since", "range",
)  # fmt: skip


@dataclass
class AzureFaults:
    """What goes wrong until it is set back.

    Attributes:
        refuse: Status and code, e.g. (503, "ServerBusy").
        refuse_only: Only requests whose description matches this pattern, e.g. "range".
        cut_range: The connection is cut at the range with this number, from 1.
        damage: What is read is not what is stored.
    """

    refuse: tuple[int, str] | None = None
    refuse_only: str = ""
    cut_range: int | None = None
    damage: bool = False


@dataclass
class _File:
    content: bytearray
    etag: str
    modified_at: datetime

    def touch(self) -> None:
        """It changed now."""
        self.etag, self.modified_at = f'"0x{secrets.token_hex(8)}"', datetime.now(UTC)


class AzureSandbox(StandIn):
    """A running API with one share.

    Attributes:
        share: Its name.
        files: Path in the share to content, as stored now; paths ignore case.
        faults: What goes wrong.
        requests: How often each kind of request came.
    """

    def __init__(self, port: int) -> None:
        self.share = "exchange"
        self.faults = AzureFaults()
        self.requests: Counter[str] = Counter()
        self._key = base64.b64encode(secrets.token_bytes(64)).decode()
        self._files: dict[str, _File] = {}
        self._folders: set[str] = {""}
        routes = [Route("/{path:path}", self._answer, methods=["GET", "HEAD", "PUT", "DELETE"])]
        self._server = WebServer(Starlette(routes=routes), port=port, name="azure-sandbox")

    @property
    def url(self) -> str:
        """The account's address."""
        return f"{self._server.url}/{_ACCOUNT}"

    @property
    def files(self) -> dict[str, bytes]:
        """Path to content."""
        return {path: bytes(file.content) for path, file in self._files.items()}

    def block(self, **fields: Any) -> AzureFileShare:
        """The block for it; `fields` go before what would be right."""
        from blocks.azure_file_share import AzureFileShare

        right = {
            "account_name": _ACCOUNT,
            "share": self.share,
            "account_key": self._key,
            "endpoint_url": self.url,
        }
        return AzureFileShare(**{**right, **fields})

    def reset(self) -> None:
        """Forget all files, folders, faults and counts."""
        self._files.clear()
        self._folders = {""}
        self.requests.clear()
        self.faults = AzureFaults()

    def stop(self) -> None:
        """Stop listening."""
        self._server.stop()

    async def _answer(self, request: Request) -> Response:
        body = await request.body()
        query = request.query_params
        kind = query.get("comp") or query.get("restype") or "file"
        self.requests[f"{request.method} {kind}"] += 1
        if not self._is_signed(request):
            return _error(403, "AuthenticationFailed")
        faults = self.faults
        if faults.refuse and re.search(faults.refuse_only, f"{request.method} {kind}"):
            return _error(*faults.refuse)
        _, share, *names = request.path_params["path"].split("/")
        path = "/".join(name for name in names if name)
        if share != self.share:
            return _error(404, "ShareNotFound")
        if _INVALID.search(path):
            return _error(400, "InvalidResourceName")
        path = self._spelt(path)
        if kind == "list":
            return self._list(path, query)
        if kind == "directory":
            return self._make_folder(path) if request.method == "PUT" else _error(400, "Invalid")
        if kind == "rename":
            return self._rename(request, path)
        if kind == "range":
            return self._write(request, path, body)
        if request.method == "PUT":
            return self._create(request, path)
        return self._file_request(request, path)

    def _create(self, request: Request, path: str) -> Response:
        if _parent(path) not in self._folders:
            return _error(404, "ParentNotFound")
        if path in self._folders:
            return _error(409, "ResourceTypeMismatch")
        file = _File(bytearray(int(request.headers["x-ms-content-length"])), "", datetime.now(UTC))
        file.touch()
        self._files[path] = file
        return _done(201, file)

    def _write(self, request: Request, path: str, body: bytes) -> Response:
        file = self._files.get(path)
        span = re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("x-ms-range", ""))
        if file is None or span is None:
            return _error(404, "ResourceNotFound")
        if self.faults.cut_range == self.requests["PUT range"]:
            return CutAnswer()
        sent = request.headers.get("content-md5")
        if sent and base64.b64decode(sent) != hashlib.md5(body, usedforsecurity=False).digest():
            return _error(400, "Md5Mismatch")
        start, end = int(span[1]), int(span[2]) + 1
        if len(body) > _RANGE_BYTES:
            return _error(413, "RequestBodyTooLarge")
        if end > len(file.content) or end - start != len(body):
            return _error(416, "InvalidRange")
        file.content[start:end] = body
        file.touch()
        return _done(201, file)

    def _rename(self, request: Request, path: str) -> Response:
        source = unquote(urlsplit(request.headers["x-ms-file-rename-source"]).path)
        old = self._spelt("/".join(source.split("/")[3:]))
        if old not in self._files:
            return _error(404, "ResourceNotFound")
        if _parent(path) not in self._folders:
            return _error(404, "ParentNotFound")
        if path in self._folders:
            return _error(409, "ResourceTypeMismatch")
        replace = request.headers.get("x-ms-file-rename-replace-if-exists", "").lower() == "true"
        if path in self._files and path != old and not replace:
            return _error(409, "ResourceAlreadyExists")
        file = self._files.pop(old)
        self._files.pop(path, None)
        self._files[path] = file
        return _done(200, file)

    def _make_folder(self, path: str) -> Response:
        if path in self._folders:
            return _error(409, "ResourceAlreadyExists")
        if _parent(path) not in self._folders:
            return _error(404, "ParentNotFound")
        self._folders.add(path)
        return _done(201, None)

    def _file_request(self, request: Request, path: str) -> Response:
        file = self._files.get(path)
        if file is None:
            missing = _parent(path) not in self._folders
            return _error(404, "ParentNotFound" if missing else "ResourceNotFound")
        if request.method == "DELETE":
            del self._files[path]
            return _done(202, None)
        content = bytes(file.content)
        headers = {**_headers(file), "x-ms-type": "File"}
        if request.method == "HEAD":
            return Response(headers={**headers, "Content-Length": str(len(content))})
        if self.faults.damage:
            content = content[:-1] + b"?"
        asked = re.fullmatch(
            r"bytes=(\d+)-(\d*)",
            request.headers.get("x-ms-range") or request.headers.get("range") or "",
        )
        if asked is None:
            return Response(content, headers=headers)
        start, end = int(asked[1]), min(int(asked[2] or len(content)), len(content) - 1)
        if start >= len(content):
            return _error(416, "InvalidRange")
        part = bytes(file.content)[start : end + 1]
        headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
        if request.headers.get("x-ms-range-get-content-md5") == "true":
            digest = hashlib.md5(part, usedforsecurity=False).digest()
            headers["Content-MD5"] = base64.b64encode(digest).decode()
        return Response(content[start : end + 1], 206, headers)

    def _list(self, path: str, query: Any) -> Response:
        if path not in self._folders:
            return _error(404, "ResourceNotFound")
        entries = [(folder, None) for folder in self._folders if folder and _parent(folder) == path]
        found = sorted([*entries, *self._files.items()], key=lambda entry: entry[0])
        here = [entry for entry in found if _parent(entry[0]) == path]
        start = int(query.get("marker") or 0)
        size = int(query.get("maxresults") or _PAGE)
        rows = "".join(_entry(name, file) for name, file in here[start : start + size])
        marker = str(start + size) if start + size < len(here) else ""
        document = (
            '<?xml version="1.0" encoding="utf-8"?><EnumerationResults>'
            f"<Entries>{rows}</Entries><NextMarker>{marker}</NextMarker></EnumerationResults>"
        )
        return Response(document, media_type="application/xml")

    def _spelt(self, path: str) -> str:
        """The path as its folders and file were first written: names ignore case."""
        for known in (*self._folders, *self._files):
            if known.lower() == path.lower():
                return known
        folder, slash, name = path.rpartition("/")
        return f"{self._spelt(folder)}{slash}{name}"

    def _is_signed(self, request: Request) -> bool:
        """Source: learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key."""
        headers = request.headers
        values = [headers.get(name, "") for name in _SIGNED_HEADERS]
        values[2] = "" if values[2] == "0" else values[2]
        own = sorted((k, v) for k, v in headers.items() if k.startswith("x-ms-"))
        query = sorted(request.query_params.multi_items())
        text = "\n".join([request.method, *values])
        text += "".join(f"\n{name}:{value}" for name, value in own)
        text += f"\n/{_ACCOUNT}{request.scope['raw_path'].decode()}"
        text += "".join(f"\n{name.lower()}:{value}" for name, value in query)
        digest = hmac.digest(base64.b64decode(self._key), text.encode(), "sha256")
        right = f"SharedKey {_ACCOUNT}:{base64.b64encode(digest).decode()}"
        return hmac.compare_digest(headers.get("authorization", ""), right)


def start(*, port: int = 0) -> AzureSandbox:
    """Serve one share; what it stores is gone when it stops.

    Args:
        port: 0 for a free one.
    """
    return AzureSandbox(port)


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _headers(file: _File) -> dict[str, str]:
    return {
        "ETag": file.etag,
        "Last-Modified": format_datetime(file.modified_at, usegmt=True),
        "x-ms-request-id": "sandbox",
        "x-ms-version": "2025-01-05",
        "x-ms-request-server-encrypted": "true",
    }


def _done(status: int, file: _File | None) -> Response:
    shown = file or _File(bytearray(), '"0x1"', datetime.now(UTC))
    return Response(status_code=status, headers=_headers(shown))


def _error(status: int, code: str) -> Response:
    document = (
        '<?xml version="1.0" encoding="utf-8"?>'
        f"<Error><Code>{code}</Code><Message>refused</Message></Error>"
    )
    return Response(document, status, {"x-ms-error-code": code}, "application/xml")


def _entry(path: str, file: _File | None) -> str:
    name = escape(path.rpartition("/")[2])
    if file is None:
        return f"<Directory><Name>{name}</Name><Properties/></Directory>"
    return (
        f"<File><Name>{name}</Name><Properties><Content-Length>{len(file.content)}"
        f"</Content-Length><Last-Modified>{format_datetime(file.modified_at, usegmt=True)}"
        f"</Last-Modified><Etag>{escape(file.etag)}</Etag></Properties></File>"
    )
