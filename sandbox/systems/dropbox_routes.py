"""Dropbox's HTTP API as far as files go, over one account: the real SDK talks to it unchanged.

Source: dropbox.com/developers/documentation/http/documentation, and the `dropbox` package.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from sandbox.systems.dropbox_store import Refused, Store, union

_TOKEN_LIFE_S = 14_400
_LONGPOLL_EVERY_S = 0.2
_CHUNK_BYTES = 64 * 1024

Handler = Callable[[Request, dict[str, Any]], Awaitable[Response]]


@dataclass
class Faults:
    """What goes wrong until it is set back.

    Attributes:
        busy: So many requests are answered 429, with `retry_after_s`.
        failing: So many requests are answered 500.
        full: Nothing can be stored any more.
        missing_scope: What the app may not do, e.g. "files.content.write".
        cut_after_bytes: Downloads end after so many bytes.
        damage: Downloads have another first byte than what is stored.
        page_entries: The most entries on a page of a listing.
    """

    busy: int = 0
    retry_after_s: int = 1
    failing: int = 0
    full: bool = False
    missing_scope: str | None = None
    cut_after_bytes: int | None = None
    damage: bool = False
    page_entries: int = 2000


@dataclass
class Account:
    """One account, the one app that is linked to it, and what is wrong with both."""

    store: Store
    app_key: str
    app_secret: str
    refresh_token: str
    faults: Faults = field(default_factory=Faults)
    requests: Counter[str] = field(default_factory=Counter)
    tokens: set[str] = field(default_factory=set)
    links: dict[str, Path] = field(default_factory=dict)

    def app(self) -> Starlette:
        """The API to serve."""
        calls: dict[str, Handler] = {
            "files/copy_v2": self._copy,
            "files/create_folder_v2": self._create_folder,
            "files/delete_v2": self._delete,
            "files/download": self._download,
            "files/get_metadata": self._get_metadata,
            "files/get_temporary_link": self._get_temporary_link,
            "files/list_folder": self._list_folder,
            "files/list_folder/continue": self._list_folder_continue,
            "files/list_folder/get_latest_cursor": self._get_latest_cursor,
            "files/list_folder/longpoll": self._longpoll,
            "files/move_v2": self._move,
            "files/upload": self._upload,
            "files/upload_session/append_v2": self._append,
            "files/upload_session/finish": self._finish,
            "files/upload_session/start": self._start,
            "users/get_current_account": self._get_current_account,
            "users/get_space_usage": self._get_space_usage,
        }
        routes = [
            Route(f"/2/{name}", self._guarded(name, handler), methods=["POST"])
            for name, handler in calls.items()
        ]
        routes.append(Route("/oauth2/token", self._token, methods=["POST"]))
        routes.append(Route("/temporary/{key}", self._follow_link))
        return Starlette(routes=routes)

    def _guarded(self, name: str, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        async def call(request: Request) -> Response:
            self.requests[name] += 1
            refusal = self._refusal(request, name)
            if refusal is not None:
                return refusal
            in_header = request.headers.get("dropbox-api-arg")
            argument = json.loads(in_header or await request.body())
            try:
                return await handler(request, argument or {})
            except Refused as exc:
                return _error(exc.error, 409)

        return call

    def _refusal(self, request: Request, name: str) -> Response | None:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if self.faults.busy > 0:
            self.faults.busy -= 1
            wait = self.faults.retry_after_s
            response = _error({"reason": union("too_many_requests"), "retry_after": wait}, 429)
            response.headers["retry-after"] = str(wait)
            return response
        if self.faults.failing > 0:
            self.faults.failing -= 1
            return Response("Internal Server Error", 500)
        if token not in self.tokens and not name.endswith("longpoll"):
            return _error(union("expired_access_token"), 401)
        if self.faults.missing_scope:
            scope = union("missing_scope", required_scope=self.faults.missing_scope)
            return _error(scope, 401)
        return None

    async def _token(self, request: Request) -> Response:
        form = {key: value[0] for key, value in parse_qs((await request.body()).decode()).items()}
        known = (self.refresh_token, self.app_key, self.app_secret)
        if tuple(form.get(k) for k in ("refresh_token", "client_id", "client_secret")) != known:
            return JSONResponse({"error": "invalid_grant"}, 400)
        token = "sl." + uuid.uuid4().hex
        self.tokens.add(token)
        return JSONResponse(
            {"access_token": token, "token_type": "bearer", "expires_in": _TOKEN_LIFE_S}
        )

    async def _list_folder(self, _: Request, argument: dict[str, Any]) -> Response:
        cursor = self.store.begin_listing(
            argument["path"], recursive=argument.get("recursive", False)
        )
        return JSONResponse(self._page(cursor, argument))

    async def _list_folder_continue(self, _: Request, argument: dict[str, Any]) -> Response:
        return JSONResponse(self._page(argument["cursor"], argument))

    def _page(self, cursor: str, argument: dict[str, Any]) -> dict[str, Any]:
        limit = min(argument.get("limit") or 2000, self.faults.page_entries)
        return self.store.continue_listing(cursor, limit=limit)

    async def _get_latest_cursor(self, _: Request, argument: dict[str, Any]) -> Response:
        recursive = argument.get("recursive", False)
        cursor = self.store.begin_listing(argument["path"], recursive=recursive, from_now=True)
        return JSONResponse({"cursor": cursor})

    async def _longpoll(self, _: Request, argument: dict[str, Any]) -> Response:
        try:
            async with asyncio.timeout(argument.get("timeout", 30)):
                while not self.store.has_changes(argument["cursor"]):  # noqa: ASYNC110  # a disk
                    await asyncio.sleep(_LONGPOLL_EVERY_S)
        except TimeoutError:
            return JSONResponse({"changes": False})
        return JSONResponse({"changes": True})

    async def _download(self, _: Request, argument: dict[str, Any]) -> Response:
        path = self._file(argument["path"])
        described = self.store.metadata(path, tagged=False)

        async def content() -> AsyncIterator[bytes]:
            left = self.faults.cut_after_bytes
            with path.open("rb") as stream:
                if self.faults.damage:
                    yield bytes([stream.read(1)[0] ^ 1])
                while piece := stream.read(_CHUNK_BYTES):
                    if left is not None:
                        left -= len(piece)
                        if left < 0:
                            raise ConnectionResetError
                    yield piece

        headers = {
            "dropbox-api-result": json.dumps(described),
            "content-length": str(described["size"]),
        }
        return StreamingResponse(content(), 200, headers, "application/octet-stream")

    async def _upload(self, request: Request, argument: dict[str, Any]) -> Response:
        upload = self.store.new_upload()
        upload.write_bytes(await self._checked(request, argument))
        try:
            self._refuse_if_full()
            return JSONResponse(self.store.place(upload, argument["path"], argument))
        except Refused as exc:
            error = {".tag": "path", "reason": exc.error, "upload_session_id": upload.name}
            raise Refused(error) from exc

    async def _start(self, request: Request, argument: dict[str, Any]) -> Response:
        upload = self.store.new_upload()
        upload.write_bytes(await self._checked(request, argument))
        return JSONResponse({"session_id": upload.name})

    async def _append(self, request: Request, argument: dict[str, Any]) -> Response:
        await self._extend(request, argument)
        return JSONResponse(None)

    async def _finish(self, request: Request, argument: dict[str, Any]) -> Response:
        try:
            upload = await self._extend(request, argument)
        except Refused as exc:
            if exc.error[".tag"] == "content_hash_mismatch":
                raise
            raise Refused({".tag": "lookup_failed", "lookup_failed": exc.error}) from exc
        commit = argument["commit"]
        try:
            self._refuse_if_full()
            return JSONResponse(self.store.place(upload, commit["path"], commit))
        except Refused as exc:
            raise Refused({".tag": "path", "path": exc.error}) from exc

    async def _extend(self, request: Request, argument: dict[str, Any]) -> Path:
        content = await self._checked(request, argument)
        upload = self.store.upload(argument["cursor"]["session_id"])
        size = upload.stat().st_size
        if argument["cursor"]["offset"] != size:
            raise Refused(union("incorrect_offset", correct_offset=size))
        with upload.open("ab") as stream:
            stream.write(content)
        return upload

    async def _checked(self, request: Request, argument: dict[str, Any]) -> bytes:
        content = await request.body()
        announced = argument.get("content_hash")
        if announced and announced != self.store.content_hash(content):
            raise Refused(union("content_hash_mismatch"))
        return content

    def _refuse_if_full(self) -> None:
        if self.faults.full:
            raise Refused(union("insufficient_space"))

    async def _move(self, _: Request, argument: dict[str, Any]) -> Response:
        moved = self.store.relocate(argument["from_path"], argument["to_path"], copy=False)
        return JSONResponse({"metadata": moved})

    async def _copy(self, _: Request, argument: dict[str, Any]) -> Response:
        copied = self.store.relocate(argument["from_path"], argument["to_path"], copy=True)
        return JSONResponse({"metadata": copied})

    async def _delete(self, _: Request, argument: dict[str, Any]) -> Response:
        deleted = self.store.delete(argument["path"], parent_rev=argument.get("parent_rev"))
        return JSONResponse({"metadata": deleted})

    async def _create_folder(self, _: Request, argument: dict[str, Any]) -> Response:
        return JSONResponse({"metadata": self.store.make_folder(argument["path"])})

    async def _get_metadata(self, _: Request, argument: dict[str, Any]) -> Response:
        found = self.store.find(argument["path"])
        if found is None:
            raise Refused(union("path", "not_found"))
        return JSONResponse(self.store.metadata(found))

    async def _get_temporary_link(self, request: Request, argument: dict[str, Any]) -> Response:
        path = self._file(argument["path"])
        key = uuid.uuid4().hex
        self.links[key] = path
        link = str(request.url.replace(path=f"/temporary/{key}", query=""))
        return JSONResponse({"metadata": self.store.metadata(path, tagged=False), "link": link})

    async def _follow_link(self, request: Request) -> Response:
        path = self.links.get(request.path_params["key"])
        return FileResponse(path) if path else Response("Not Found", 404)

    async def _get_current_account(self, _: Request, __: dict[str, Any]) -> Response:
        name = {
            "given_name": "Ada",
            "surname": "Okafor",
            "familiar_name": "Ada",
            "display_name": "Ada Okafor",
            "abbreviated_name": "AO",
        }
        account = {
            "account_id": "dbid:" + "A" * 35,
            "name": name,
            "email": "ada@example.com",
            "email_verified": True,
            "disabled": False,
            "locale": "en",
            "referral_link": "https://db.tt/sandbox",
            "is_paired": False,
            "account_type": union("basic"),
            "root_info": union("user", root_namespace_id="1", home_namespace_id="1"),
        }
        return JSONResponse(account)

    async def _get_space_usage(self, _: Request, __: dict[str, Any]) -> Response:
        allocation = union("individual", allocated=2 * 1024**3)
        return JSONResponse({"used": 0, "allocation": allocation})

    def _file(self, path: str) -> Path:
        found = self.store.find(path)
        if found is None:
            raise Refused(union("path", "not_found"))
        if not found.is_file():
            raise Refused(union("path", "not_file"))
        return found


def _error(error: dict[str, Any], status: int) -> JSONResponse:
    tags = []
    inner: Any = error
    while isinstance(inner, dict) and ".tag" in inner:
        tags.append(inner[".tag"])
        inner = inner.get(inner[".tag"])
    return JSONResponse({"error_summary": "/".join([*tags, "..."]), "error": error}, status)
