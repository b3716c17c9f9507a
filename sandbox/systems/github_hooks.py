"""A repository's webhooks as GitHub has them: listed, made, changed, removed, pinged, and called.

Source: docs.github.com/en/rest/repos/webhooks.
"""

from __future__ import annotations

import hashlib
import hmac
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import httpx
import orjson
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sandbox.systems.web_server import CutAnswer

_TIMEOUT_S = 10
_DEFAULT_PAGE = 30


@dataclass
class HookFaults:
    """What goes wrong until it is set back.

    Attributes:
        lose_answer: A hook is made or not, and then the connection is cut.
    """

    lose_answer: Literal["taken", "not taken"] | None = None


@dataclass
class Hook:
    """One webhook.

    Attributes:
        id: GitHub's.
        config: URL, content type, and the secret, which is never shown.
        events: What is told.
        active: Whether it is called at all.
        last_response: What its receiver answered last.
    """

    id: int
    config: dict[str, Any]
    events: list[str]
    active: bool = True
    last_response: dict[str, Any] = field(
        default_factory=lambda: {"code": None, "status": "unused", "message": None}
    )


class GithubHooks:
    """The webhooks of one repository.

    Attributes:
        hooks: By id.
        faults: What goes wrong.
    """

    def __init__(self, repository: str) -> None:
        self.repository = repository
        self.hooks: dict[int, Hook] = {}
        self.faults = HookFaults()
        self._next_id = 101
        self._lock = threading.Lock()
        self._couriers = ThreadPoolExecutor(2, "github-hooks")

    def routes(self) -> list[Route]:
        """What the API serves."""
        hooks = f"/repos/{self.repository}/hooks"
        return [
            Route(hooks, self._list, methods=["GET"]),
            Route(hooks, self._create, methods=["POST"]),
            Route(hooks + "/{id:int}", self._show, methods=["GET"]),
            Route(hooks + "/{id:int}", self._change, methods=["PATCH"]),
            Route(hooks + "/{id:int}", self._remove, methods=["DELETE"]),
            Route(hooks + "/{id:int}/pings", self._ping, methods=["POST"]),
        ]

    def tell(self, event: str, payload: dict[str, Any]) -> None:
        """Let something happen in the repository: every hook that wants to know is called."""
        with self._lock:
            wanting = [hook for hook in self.hooks.values() if _wants(hook, event)]
        for hook in wanting:
            self._call(hook, event, payload)

    def reset(self) -> None:
        """Forget all hooks and faults."""
        with self._lock:
            self.hooks.clear()
            self.faults = HookFaults()

    def close(self) -> None:
        """Call nobody any more."""
        self._couriers.shutdown(wait=True, cancel_futures=True)

    async def _list(self, request: Request) -> Response:
        size = int(request.query_params.get("per_page", _DEFAULT_PAGE))
        page = int(request.query_params.get("page", "1"))
        with self._lock:
            found = [_shown(hook) for hook in self.hooks.values()]
        headers = {}
        if len(found) > page * size:
            following = request.url.include_query_params(page=page + 1)
            headers["Link"] = f'<{following}>; rel="next"'
        return JSONResponse(found[(page - 1) * size : page * size], headers=headers)

    async def _create(self, request: Request) -> Response:
        asked = await request.json()
        config = dict(asked.get("config") or {})
        if not str(config.get("url", "")).startswith(("http://", "https://")):
            return _invalid("url is not a URL")
        with self._lock:
            if any(hook.config["url"] == config["url"] for hook in self.hooks.values()):
                return _invalid("Hook already exists on this repository")
            if self.faults.lose_answer == "not taken":
                return CutAnswer()
            hook = Hook(
                self._next_id,
                config,
                list(asked.get("events") or ["push"]),
                active=bool(asked.get("active", True)),
            )
            self._next_id += 1
            self.hooks[hook.id] = hook
        self._call(hook, "ping", self._ping_payload(hook))
        return CutAnswer() if self.faults.lose_answer else JSONResponse(_shown(hook), 201)

    async def _show(self, request: Request) -> Response:
        hook = self.hooks.get(request.path_params["id"])
        return _not_found() if hook is None else JSONResponse(_shown(hook))

    async def _change(self, request: Request) -> Response:
        asked = await request.json()
        with self._lock:
            hook = self.hooks.get(request.path_params["id"])
            if hook is None:
                return _not_found()
            if "config" in asked:
                hook.config = dict(asked["config"])  # all of it: a secret not sent is removed
            hook.events = list(asked.get("events", hook.events))
            hook.active = bool(asked.get("active", hook.active))
            return JSONResponse(_shown(hook))

    async def _remove(self, request: Request) -> Response:
        with self._lock:
            hook = self.hooks.pop(request.path_params["id"], None)
        return _not_found() if hook is None else Response(status_code=204)

    async def _ping(self, request: Request) -> Response:
        hook = self.hooks.get(request.path_params["id"])
        if hook is None:
            return _not_found()
        self._call(hook, "ping", self._ping_payload(hook))
        return Response(status_code=204)

    def _ping_payload(self, hook: Hook) -> dict[str, Any]:
        return {"zen": "Keep it logically awesome.", "hook_id": hook.id, "hook": _shown(hook)}

    def _call(self, hook: Hook, event: str, payload: dict[str, Any]) -> None:
        self._couriers.submit(_deliver, hook, event, payload)


def _deliver(hook: Hook, event: str, payload: dict[str, Any]) -> None:
    body = orjson.dumps(payload)
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "GitHub-Hookshot/sandbox",
        "X-GitHub-Event": event,
        "X-GitHub-Delivery": str(uuid.uuid4()),
        "X-GitHub-Hook-ID": str(hook.id),
    }
    if secret := hook.config.get("secret"):
        digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        headers["X-Hub-Signature-256"] = f"sha256={digest}"
    try:
        answer = httpx.post(hook.config["url"], content=body, headers=headers, timeout=_TIMEOUT_S)
    except httpx.HTTPError:
        hook.last_response = {"code": 502, "status": "connection_error", "message": None}
        return
    status = "active" if answer.is_success else "invalid_response"
    hook.last_response = {"code": answer.status_code, "status": status, "message": None}


def _wants(hook: Hook, event: str) -> bool:
    return hook.active and (event in hook.events or "*" in hook.events)


def _shown(hook: Hook) -> dict[str, Any]:
    config = {**hook.config}
    if "secret" in config:
        config["secret"] = "********"  # noqa: S105 - as GitHub shows it
    return {
        "type": "Repository",
        "id": hook.id,
        "name": "web",
        "active": hook.active,
        "events": hook.events,
        "config": config,
        "updated_at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "last_response": hook.last_response,
    }


def _not_found() -> Response:
    return JSONResponse({"message": "Not Found"}, 404)


def _invalid(message: str) -> Response:
    document = {"message": "Validation Failed", "errors": [{"message": message}]}
    return JSONResponse(document, 422)
