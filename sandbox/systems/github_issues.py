"""The issues of the one repository of the GitHub stand-in.

Source: https://docs.github.com/en/rest/issues/issues
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import orjson
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sandbox.systems.kept_records import KeptRecords
from sandbox.systems.web_server import CutAnswer

_LARGEST_PAGE = 100
_DEFAULT_PAGE = 30


class GithubIssues:
    """What people and integrations have reported.

    Attributes:
        issues: By number, as the API shows them.
        writes: How many were carried out.
        lose_answers: The next so many writes are carried out, and the connection is cut.
        refuse_with: Status that writes are answered instead of being carried out.

    Args:
        repository: As owner/name.
        tell: Told the event "issues" and its payload, for the webhooks.
    """

    def __init__(
        self, repository: str, tell: Callable[[str, dict[str, Any]], None] = lambda *_: None
    ) -> None:
        self._tell = tell
        self._kept = KeptRecords(None)
        self._path = f"/repos/{repository}/issues"
        self._repository = repository
        self.reset()

    def reset(self) -> None:
        """Forget everything and every fault."""
        self.issues: dict[int, dict[str, Any]] = {}
        self.writes = 0
        self.lose_answers = 0
        self.refuse_with: Literal[403, 410, 422, 500, 503] | None = None

    def cache_in(self, file: Path) -> None:
        """Have the issues of earlier times, and keep them in this file from now on."""
        self._kept = KeptRecords(file)
        self.issues = {each["number"]: each for each in self._kept.load()}

    def routes(self) -> list[Route]:
        """Of the API."""
        one = f"{self._path}/{{number:int}}"
        return [
            Route(self._path, self._list, methods=["GET"]),
            Route(self._path, self._create, methods=["POST"]),
            Route(one, self._get, methods=["GET"]),
            Route(one, self._update, methods=["PATCH"]),
        ]

    async def _list(self, request: Request) -> Response:
        query = request.query_params
        labels = {name for name in query.get("labels", "").split(",") if name}
        state, since = query.get("state", "open"), query.get("since", "")
        if since:
            since = _instant(datetime.fromisoformat(since))
        found = [
            each
            for each in sorted(self.issues.values(), key=lambda issue: -int(issue["number"]))
            if state in ("all", each["state"])
            and labels <= {label["name"] for label in each["labels"]}
            and each["updated_at"] >= since
        ]
        size = min(int(query.get("per_page", _DEFAULT_PAGE)), _LARGEST_PAGE)
        page = int(query.get("page", 1))
        headers = {}
        if len(found) > page * size:
            following = request.url.include_query_params(page=page + 1)
            headers["Link"] = f'<{following}>; rel="next"'
        return JSONResponse(found[(page - 1) * size : page * size], headers=headers)

    async def _create(self, request: Request) -> Response:
        return self._write(self._created, orjson.loads(await request.body()))

    async def _get(self, request: Request) -> Response:
        issue = self.issues.get(request.path_params["number"])
        return JSONResponse(issue) if issue else JSONResponse({"message": "Not Found"}, 404)

    async def _update(self, request: Request) -> Response:
        issue = self.issues.get(request.path_params["number"])
        if issue is None:
            return JSONResponse({"message": "Not Found"}, 404)
        return self._write(
            lambda given: self._updated(issue, given), orjson.loads(await request.body())
        )

    def _write(self, carry_out: Any, given: dict[str, Any]) -> Response:
        if self.refuse_with is not None:
            return JSONResponse({"message": "Issues has been disabled"}, self.refuse_with)
        response: Response = carry_out(given)
        if response.status_code < 300:
            self.writes += 1
            self._kept.keep(list(self.issues.values()))
            if self.lose_answers:
                self.lose_answers -= 1
                return CutAnswer()
        return response

    def _created(self, given: dict[str, Any]) -> Response:
        if not given.get("title"):
            return _invalid("title", "missing_field")
        number, now = len(self.issues) + 1, _instant(datetime.now(UTC))
        issue = {
            "number": number,
            "html_url": f"https://github.com/{self._repository}/issues/{number}",
            "title": given["title"],
            "body": given.get("body"),
            "state": "open",
            "labels": [{"name": name} for name in given.get("labels", [])],
            "created_at": now,
            "updated_at": now,
        }
        self.issues[number] = issue
        self._tell_of("opened", issue)
        return JSONResponse(issue, 201)

    def _updated(self, issue: dict[str, Any], given: dict[str, Any]) -> Response:
        if given.get("state") not in (None, "open", "closed"):
            return _invalid("state", "invalid")
        changed: dict[str, Any] = {
            name: given[name] for name in ("title", "body", "state") if name in given
        }
        if "labels" in given:
            changed["labels"] = [{"name": name} for name in given["labels"]]
        action = {"open": "reopened", "closed": "closed"}.get(changed.get("state", ""), "edited")
        if changed.get("state") == issue["state"]:
            action = "edited"
        issue |= changed | {"updated_at": _instant(datetime.now(UTC))}
        self._tell_of(action, issue)
        return JSONResponse(issue)

    def _tell_of(self, action: str, issue: dict[str, Any]) -> None:
        event = {
            "action": action,
            "issue": dict(issue),
            "repository": {"full_name": self._repository},
            "sender": {"login": "integration"},
        }
        self._tell("issues", event)


def _invalid(field: str, code: str) -> Response:
    errors = [{"resource": "Issue", "field": field, "code": code}]
    return JSONResponse({"message": "Validation Failed", "errors": errors}, 422)


def _instant(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
