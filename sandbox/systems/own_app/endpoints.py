"""What each route of the API does with the store, inside or outside a transaction."""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime
from typing import Any

import orjson
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from sandbox.systems.own_app.answering import (
    Result,
    json_response,
    read_body,
    require_idempotency_key,
    write,
)
from sandbox.systems.own_app.events import asyncapi_document
from sandbox.systems.own_app.problems import ProblemError, invalid_body, invalid_records
from sandbox.systems.own_app.records import RESOURCES, Adjustment, InventoryItem, Resource
from sandbox.systems.own_app.store import Row, Store

_DEFAULT_LIMIT = 100
_MAX_LIMIT = 1000


async def store_batch(request: Request, store: Store) -> Response:
    """POST …/{resource}/batch: upsert all records or none."""
    require_idempotency_key(request)
    resource = _resource(request)
    body = await read_body(request)

    def apply() -> Result:
        try:
            records = resource.batch.model_validate_json(body).records
        except ValidationError as exc:
            raise invalid_records(exc) from exc
        pairs = [(resource.key_of(record), record.model_dump_json()) for record in records]
        upserted = store.upsert(resource.name, pairs)
        answer = {"received": len(records), **upserted._asdict()}
        return Result(200, orjson.dumps(answer), records=len(records))

    return write(request, store, body, apply)


async def put_record(request: Request, store: Store) -> Response:
    """PUT …/{resource}/{key}: upsert one record."""
    resource, key = _resource(request), request.path_params["key"]
    body = await read_body(request)

    def apply() -> Result:
        try:
            record = resource.record.model_validate_json(body)
        except ValidationError as exc:
            raise invalid_body(exc) from exc
        if resource.key_of(record) != key:
            raise ProblemError(
                422, f"{resource.key_field} in the body differs from the one in the path"
            )
        _check_conditions(request, store.get(resource.name, key))
        upserted = store.upsert(resource.name, [(key, record.model_dump_json())])
        return Result(201 if upserted.created else 200, _show(_existing(store, resource, key)))

    return write(request, store, body, apply)


async def get_record(request: Request, store: Store) -> Response:
    """GET …/{resource}/{key}: one record."""
    row = _existing(store, _resource(request), request.path_params["key"])
    request.state.records = 1
    return json_response(200, _show(row))


async def patch_record(request: Request, store: Store) -> Response:
    """PATCH …/{resource}/{key}: change the given fields of one record, by JSON Merge Patch."""
    resource, key = _resource(request), request.path_params["key"]
    body = await read_body(request)

    def apply() -> Result:
        row = _existing(store, resource, key)
        _check_conditions(request, row)
        merged = _merged(orjson.loads(row.data), _object(body))
        try:
            record = resource.record.model_validate_json(orjson.dumps(merged))
        except ValidationError as exc:
            raise invalid_body(exc) from exc
        if resource.key_of(record) != key:
            raise ProblemError(422, f"{resource.key_field} cannot be changed")
        store.upsert(resource.name, [(key, record.model_dump_json())])
        return Result(200, _show(_existing(store, resource, key)))

    return write(request, store, body, apply)


async def delete_record(request: Request, store: Store) -> Response:
    """DELETE …/{resource}/{key}: remove one record."""
    resource, key = _resource(request), request.path_params["key"]

    def apply() -> Result:
        _check_conditions(request, _existing(store, resource, key))
        store.delete(resource.name, key)
        return Result(204, b"")

    return write(request, store, await read_body(request), apply)


async def list_records(request: Request, store: Store) -> Response:
    """GET …/{resource}: a page of records in the order they last changed.

    Fields in the query, e.g. `email=ada@example.com`, leave out what holds something else.
    """
    resource = _resource(request)
    query = request.query_params
    rows = store.changed_after(
        resource.name,
        _position(query.get("cursor")),
        since=_since(query.get("updated_since")),
        limit=(limit := _limit(query.get("limit"))) + 1,
        having={name: text for name, text in query.items() if name in resource.columns},
    )
    rows, more = rows[:limit], len(rows) > limit
    cursor = orjson.dumps(_cursor(rows[-1]) if more else None).decode()
    request.state.records = len(rows)
    shown = ",".join(row.json() for row in rows)
    return json_response(200, f'{{"records":[{shown}],"next_cursor":{cursor}}}'.encode())


async def adjust_stock(request: Request, store: Store) -> Response:
    """POST …/inventory/{sku}/adjustments: change one item's quantity, never below zero."""
    require_idempotency_key(request)
    resource, key = RESOURCES["inventory"], request.path_params["key"]
    body = await read_body(request)

    def apply() -> Result:
        try:
            adjustment = Adjustment.model_validate_json(body)
        except ValidationError as exc:
            raise invalid_body(exc) from exc
        item = InventoryItem.model_validate_json(_existing(store, resource, key).data)
        quantity = _adjusted(item.quantity, adjustment)
        if quantity < 0:
            raise ProblemError(
                409, f"the stock would go negative: {item.quantity} are there; nothing was changed"
            )
        changed = item.model_copy(update={"quantity": quantity})
        store.upsert(resource.name, [(key, changed.model_dump_json())])
        return Result(200, _show(_existing(store, resource, key)))

    return write(request, store, body, apply)


async def publish_events(_request: Request, _store: Store) -> Response:
    """GET …/asyncapi.json: what is sent to webhooks."""
    return json_response(200, orjson.dumps(asyncapi_document()))


def _check_conditions(request: Request, row: Row | None) -> None:
    """Refuse a change whose conditions do not hold (RFC 9110 §13.1)."""
    wanted = request.headers.get("If-Match")
    if wanted is not None and (row is None or wanted not in ("*", f'"{row.version}"')):
        now = "it is not there" if row is None else f"it is version {row.version} now"
        raise ProblemError(412, f"{now}; nothing was changed")
    if request.headers.get("If-None-Match") == "*" and row is not None:
        raise ProblemError(412, "it is there already; nothing was changed")


def _object(body: bytes) -> dict[str, Any]:
    try:
        patch = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise ProblemError(400, "the body is not JSON") from exc
    if not isinstance(patch, dict):
        raise ProblemError(422, "the body must be an object with the fields to change")
    return patch


def _merged(target: Any, patch: Any) -> Any:
    """JSON Merge Patch (RFC 7396)."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = _merged(result.get(name), value)
    return result


def _resource(request: Request) -> Resource:
    name = request.path_params["resource"]
    if name not in RESOURCES:
        raise ProblemError(404, f"there is no such resource; there are {', '.join(RESOURCES)}")
    return RESOURCES[name]


def _existing(store: Store, resource: Resource, key: str) -> Row:
    row = store.get(resource.name, key)
    if row is None:
        raise _unknown(resource, key)
    return row


def _unknown(resource: Resource, key: str) -> ProblemError:
    return ProblemError(404, f"{resource.name} holds no {resource.key_field} {key!r}")


def _adjusted(quantity: int, adjustment: Adjustment) -> int:
    if adjustment.action == "set":
        return adjustment.quantity
    return quantity + (1 if adjustment.action == "add" else -1) * adjustment.quantity


def _limit(text: str | None) -> int:
    if text is None:
        return _DEFAULT_LIMIT
    if not text.isdecimal() or not 1 <= int(text) <= _MAX_LIMIT:
        raise ProblemError(400, f"limit must be a number from 1 to {_MAX_LIMIT}")
    return int(text)


def _since(text: str | None) -> str:
    if text is None:
        return ""
    try:
        since = datetime.fromisoformat(text)
    except ValueError:
        since = None
    if since is None or since.tzinfo is None:
        raise ProblemError(
            400, "updated_since must be an RFC 3339 instant, e.g. 2026-01-31T12:00:00Z"
        )
    return since.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _cursor(row: Row) -> str:
    return base64.urlsafe_b64encode(orjson.dumps([row.changed_at, row.key])).decode()


def _position(cursor: str | None) -> tuple[str, str]:
    if not cursor:
        return ("", "")
    try:
        changed_at, key = orjson.loads(base64.urlsafe_b64decode(cursor))
    except (binascii.Error, ValueError, TypeError) as exc:
        raise ProblemError(400, "cursor is not one this API gave") from exc
    return (str(changed_at), str(key))


def _show(row: Row) -> bytes:
    return row.json().encode()
