"""Google Drive on the loopback: files by id, queries, resumable uploads, tokens of two kinds."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sandbox.systems.google_tokens import GoogleTokens
from sandbox.systems.stand_in import StandIn
from sandbox.systems.web_server import CutAnswer, WebServer

if TYPE_CHECKING:
    from blocks.google_drive_account import GoogleDriveAccount

_FOLDER = "application/vnd.google-apps.folder"
_STORED_IN = 256 * 1024  # a cut upload keeps whole blocks of this


@dataclass
class DriveFaults:
    """What goes wrong until it is set back.

    Attributes:
        refuse: Status and reason, e.g. (403, "userRateLimitExceeded"), for so many requests.
        refuse_times: How often.
        refuse_only: Only requests whose method and path match this pattern.
        cut_upload_after: The connection is cut once, after so many bytes of a chunk.
        lose_answer: The connection is cut once when the upload is complete.
        stall: Uploads are taken and not stored.
        forget_session: The session of an upload ends after its first chunk.
        damage: What is stored is not what was sent.
        session_url: Where uploads are sent instead.
    """

    refuse: tuple[int, str] | None = None
    refuse_times: int = 1_000_000
    refuse_only: str = ""
    cut_upload_after: int | None = None
    lose_answer: bool = False
    stall: bool = False
    forget_session: bool = False
    damage: bool = False
    session_url: str | None = None


@dataclass
class _Item:
    id: str
    name: str
    parents: list[str]
    mime_type: str
    modified_at: datetime
    content: bytes | None = None
    revision: str = ""
    trashed: bool = False

    def shown(self, url: str) -> dict[str, Any]:
        """As the API describes it."""
        document = {
            "kind": "drive#file",
            "id": self.id,
            "name": self.name,
            "parents": self.parents,
            "mimeType": self.mime_type,
            "trashed": self.trashed,
            "modifiedTime": self.modified_at.isoformat(timespec="milliseconds")[:-6] + "Z",
            "webViewLink": f"{url}/file/d/{self.id}/view",
        }
        if self.content is not None:
            document |= {
                "size": str(len(self.content)),
                "md5Checksum": hashlib.md5(self.content, usedforsecurity=False).hexdigest(),
                "headRevisionId": self.revision,
            }
        return document


@dataclass
class _Session:
    metadata: dict[str, Any]
    file_id: str | None
    content: bytearray = field(default_factory=bytearray)
    made: dict[str, Any] | None = None


class DriveSandbox(StandIn):
    """A running API.

    Attributes:
        faults: What goes wrong.
        requests: How often each method and path was called, ids left out.
    """

    def __init__(self, port: int) -> None:
        self.faults = DriveFaults()
        self.requests: Counter[str] = Counter()
        self._items: dict[str, _Item] = {}
        self._sessions: dict[str, _Session] = {}
        self._tokens = GoogleTokens()
        self.reset()
        files, upload = "/drive/v3/files", "/upload/drive/v3/files"
        routes = [
            Route("/token", self._token, methods=["POST"]),
            Route(files, self._list, methods=["GET"]),
            Route(files, self._create, methods=["POST"]),
            Route(files + "/{id}", self._get, methods=["GET"]),
            Route(files + "/{id}", self._change, methods=["PATCH"]),
            Route(files + "/{id}", self._delete, methods=["DELETE"]),
            Route(upload, self._open_session, methods=["POST"]),
            Route(upload + "/{id}", self._open_session, methods=["PATCH"]),
            Route(upload, self._receive, methods=["PUT"]),
        ]
        self._server = WebServer(Starlette(routes=routes), port=port, name="drive-sandbox")

    @property
    def url(self) -> str:
        """Its address."""
        return self._server.url

    @property
    def root_id(self) -> str:
        """The folder that was shared with us."""
        return "shared-folder"

    def key(self, kind: Literal["service_account", "authorized_user"] = "service_account") -> str:
        """A JSON key file whose tokens this API takes."""
        return self._tokens.key(kind, f"{self.url}/token")

    def block(self, **fields: Any) -> GoogleDriveAccount:
        """The block for it; `fields` go before what would be right."""
        from blocks.google_drive_account import GoogleDriveAccount

        right = {"credentials": self.key(), "folder_id": self.root_id, "api_url": self.url}
        return GoogleDriveAccount(**{**right, **fields})

    def paths(self) -> dict[str, bytes]:
        """Path to content of all files that are not in the trash."""
        return {
            self._path(item): item.content
            for item in self._items.values()
            if item.content is not None and not item.trashed
        }

    def add(self, name: str, content: bytes | None, *, mime_type: str = "text/plain") -> str:
        """Put something into the shared folder as its owner would; returns its id."""
        return self._made({"name": name, "mimeType": mime_type}, content).id

    def expire_tokens(self) -> None:
        """Let every access token given out so far be too old."""
        self._tokens.expire()

    def reset(self) -> None:
        """Forget all files, sessions, faults and counts."""
        self._items.clear()
        self._sessions.clear()
        self.requests.clear()
        self.faults = DriveFaults()
        now = datetime.now(UTC)
        self._items[self.root_id] = _Item(self.root_id, "Reports", [], _FOLDER, now)

    def stop(self) -> None:
        """Stop listening."""
        self._server.stop()

    async def _token(self, request: Request) -> Response:
        form = dict(parse_qsl((await request.body()).decode()))
        token = self._tokens.grant(form)
        if token is None:
            return JSONResponse({"error": "invalid_grant"}, 400)
        return JSONResponse({"access_token": token, "expires_in": 3600, "token_type": "Bearer"})

    async def _list(self, request: Request) -> Response:
        if refusal := self._refusal(request):
            return refusal
        query = request.query_params
        terms = _terms(query.get("q", ""))
        if terms is None:
            return _error(400, "invalid")
        if any(term["parent"] and _unquoted(term["parent"]) not in self._items for term in terms):
            return _error(404, "notFound")
        found = [item for item in self._items.values() if all(_is(item, term) for term in terms)]
        size, start = int(query.get("pageSize", "100")), int(query.get("pageToken", "0"))
        document: dict[str, Any] = {
            "files": [item.shown(self.url) for item in found[start : start + size]]
        }
        if start + size < len(found):
            document["nextPageToken"] = str(start + size)
        return JSONResponse(document)

    async def _create(self, request: Request) -> Response:
        if refusal := self._refusal(request):
            return refusal
        return JSONResponse(self._made(json.loads(await request.body()), None).shown(self.url))

    async def _get(self, request: Request) -> Response:
        if refusal := self._refusal(request):
            return refusal
        item = self._items.get(request.path_params["id"])
        if item is None:
            return _error(404, "notFound")
        if request.query_params.get("alt") != "media":
            return JSONResponse(item.shown(self.url))
        if item.content is None:
            return _error(403, "fileNotDownloadable")
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
        content = item.content[::-1] if self.faults.damage else item.content
        if asked is None:
            return Response(content, media_type=item.mime_type)
        start, end = int(asked[1]), int(asked[2] or len(content) - 1)
        span = f"bytes {start}-{min(end, len(content) - 1)}/{len(content)}"
        return Response(content[start : end + 1], 206, {"Content-Range": span})

    async def _change(self, request: Request) -> Response:
        if refusal := self._refusal(request):
            return refusal
        item = self._items.get(request.path_params["id"])
        if item is None:
            return _error(404, "notFound")
        change = json.loads(await request.body() or b"{}")
        item.name = change.get("name", item.name)
        item.trashed = change.get("trashed", item.trashed)
        query = request.query_params
        removed = query.get("removeParents", "").split(",")
        added = [added for added in query.get("addParents", "").split(",") if added]
        kept = [old for old in item.parents if old not in removed]
        item.parents = list(dict.fromkeys([*kept, *added]))
        return JSONResponse(item.shown(self.url))

    async def _delete(self, request: Request) -> Response:
        if refusal := self._refusal(request):
            return refusal
        found = self._items.pop(request.path_params["id"], None)
        return Response(status_code=204) if found else _error(404, "notFound")

    async def _open_session(self, request: Request) -> Response:
        if refusal := self._refusal(request):
            return refusal
        if request.query_params.get("uploadType") != "resumable":
            return _error(400, "badRequest")
        metadata = json.loads(await request.body() or b"{}")
        session_id = secrets.token_urlsafe(12)
        self._sessions[session_id] = _Session(metadata, request.path_params.get("id"))
        url = self.faults.session_url or self.url
        place = f"{url}/upload/drive/v3/files?uploadType=resumable&upload_id={session_id}"
        return Response(status_code=200, headers={"Location": place})

    async def _receive(self, request: Request) -> Response:
        body = await request.body()
        if refusal := self._refusal(request):
            return refusal
        session = self._sessions.get(request.query_params.get("upload_id", ""))
        span = re.fullmatch(
            r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)", request.headers.get("content-range", "")
        )
        if session is None:
            return _error(404, "notFound")
        if span is None:
            return _error(400, "badRequest")
        if session.made:
            return JSONResponse(session.made)
        if span[1] is not None and int(span[1]) != len(session.content):
            return _error(400, "badRequest")
        if not self._take(session, body):
            return CutAnswer()
        if span[3] == "*" or len(session.content) < int(span[3]):
            kept = len(session.content)
            headers = {"Range": f"bytes=0-{kept - 1}"} if kept else {}
            return Response(status_code=308, headers=headers)
        session.made = self._stored(session).shown(self.url)
        if self.faults.lose_answer:
            self.faults.lose_answer = False
            return CutAnswer()
        return JSONResponse(session.made)

    def _take(self, session: _Session, chunk: bytes) -> bool:
        """Keep a chunk as the faults allow; False if the connection is to be cut."""
        faults = self.faults
        if faults.cut_upload_after is not None and chunk:
            kept = faults.cut_upload_after // _STORED_IN * _STORED_IN
            faults.cut_upload_after = None
            session.content += chunk[:kept]
            return False
        if not faults.stall:
            session.content += chunk
        if faults.forget_session and chunk:
            self._sessions.clear()
        return True

    def _stored(self, session: _Session) -> _Item:
        content = bytes(session.content)
        if self.faults.damage:
            content = content[::-1]
        if session.file_id is None:
            return self._made(session.metadata, content)
        item = self._items[session.file_id]
        item.content, item.revision = content, secrets.token_hex(8)
        item.modified_at = datetime.now(UTC)
        return item

    def _made(self, metadata: dict[str, Any], content: bytes | None) -> _Item:
        item = _Item(
            id=secrets.token_urlsafe(12),
            name=metadata["name"],
            parents=metadata.get("parents", [self.root_id]),
            mime_type=metadata.get("mimeType", "application/octet-stream"),
            modified_at=datetime.now(UTC),
            content=content,
            revision=secrets.token_hex(8),
        )
        self._items[item.id] = item
        return item

    def _refusal(self, request: Request) -> Response | None:
        route = f"{request.method} {request.scope['route'].path}"
        self.requests[route] += 1
        if not self._tokens.is_good(request.headers.get("authorization", "")):
            return _error(401, "authError")
        faults = self.faults
        if faults.refuse and faults.refuse_times > 0 and re.search(faults.refuse_only, route):
            faults.refuse_times -= 1
            return _error(*faults.refuse)
        return None

    def _path(self, item: _Item) -> str:
        names = [item.name]
        while item.parents and item.parents[0] != self.root_id:
            item = self._items[item.parents[0]]
            names.append(item.name)
        return "/".join(reversed(names))


def start(*, port: int = 0) -> DriveSandbox:
    """Serve one shared folder; what it stores is gone when it stops.

    Args:
        port: 0 for a free one.
    """
    return DriveSandbox(port)


_TERM = re.compile(
    r"'(?P<parent>(?:[^'\\]|\\.)*)' in parents"
    r"|(?P<field>name|mimeType) (?P<op>=|!=) '(?P<value>(?:[^'\\]|\\.)*)'"
    r"|trashed = (?P<trashed>true|false)",
    re.DOTALL,
)


def _terms(query: str) -> list[re.Match[str]] | None:
    """What a query asks for, of its language only what we need; None if it is something else."""
    position, terms = 0, []
    while position < len(query):
        term = _TERM.match(query, position)
        if term is None:
            return None
        terms.append(term)
        position = term.end() + (5 if query[term.end() :].startswith(" and ") else 0)
    return terms


def _is(item: _Item, term: re.Match[str]) -> bool:
    if term["parent"] is not None:
        return _unquoted(term["parent"]) in item.parents
    if term["trashed"] is not None:
        return item.trashed == (term["trashed"] == "true")
    # Names are compared without case, as a search does.
    actual = item.name if term["field"] == "name" else item.mime_type
    return (actual.lower() == _unquoted(term["value"]).lower()) == (term["op"] == "=")


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)


def _error(status: int, reason: str) -> Response:
    error = {"code": status, "message": reason, "errors": [{"reason": reason, "message": reason}]}
    return JSONResponse({"error": error}, status)
