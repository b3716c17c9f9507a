"""What each route of the API does with the store, inside or outside a transaction."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from typing import NamedTuple

import orjson
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from deployments.sandbox.own_app.problems import ProblemError, invalid_body, invalid_records
from deployments.sandbox.own_app.records import RESOURCES, Adjustment, InventoryItem, Resource
from deployments.sandbox.own_app.store import Answer, Row, Store

MAX_BODY_BYTES = 64 * 1024 * 1024
_DEFAULT_LIMIT = 100
_MAX_LIMIT = 1000


class Result(NamedTuple):
    """The outcome of a write: its answer, and how many records it concerned."""

    status: int
    body: bytes
    records: int = 1


async def store_batch(request: Request, store: Store) -> Response:
    """POST …/{resource}/batch: upsert all records or none."""
    _require_idempotency_key(request)
    resource = _resource(request)
    body = await _body(request)

    def apply() -> Result:
        try:
            records = resource.batch.model_validate_json(body).records
        except ValidationError as exc:
            raise invalid_records(exc) from exc
        pairs = [(resource.key_of(record), record.model_dump_json()) for record in records]
        upserted = store.upsert(resource.name, pairs)
        answer = {"received": len(records), **upserted._asdict()}
        return Result(200, orjson.dumps(answer), records=len(records))

    return _write(request, store, body, apply)


async def put_record(request: Request, store: Store) -> Response:
    """PUT …/{resource}/{key}: upsert one record."""
    resource, key = _resource(request), request.path_params["key"]
    body = await _body(request)

    def apply() -> Result:
        try:
            record = resource.record.model_validate_json(body)
        except ValidationError as exc:
            raise invalid_body(exc) from exc
        if resource.key_of(record) != key:
            raise ProblemError(
                422, f"{resource.key_field} in the body differs from the one in the path"
            )
        upserted = store.upsert(resource.name, [(key, record.model_dump_json())])
        return Result(201 if upserted.created else 200, _show(_existing(store, resource, key)))

    return _write(request, store, body, apply)


async def get_record(request: Request, store: Store) -> Response:
    """GET …/{resource}/{key}: one record."""
    row = _existing(store, _resource(request), request.path_params["key"])
    request.state.records = 1
    return _json(200, _show(row))


async def delete_record(request: Request, store: Store) -> Response:
    """DELETE …/{resource}/{key}: remove one record."""
    resource, key = _resource(request), request.path_params["key"]

    def apply() -> Result:
        if not store.delete(resource.name, key):
            raise _unknown(resource, key)
        return Result(204, b"")

    return _write(request, store, await _body(request), apply)


async def list_records(request: Request, store: Store) -> Response:
    """GET …/{resource}: a page of records in the order they last changed."""
    resource = _resource(request)
    query = request.query_params
    rows = store.changed_after(
        resource.name,
        _position(query.get("cursor")),
        since=_since(query.get("updated_since")),
        limit=(limit := _limit(query.get("limit"))) + 1,
    )
    rows, more = rows[:limit], len(rows) > limit
    cursor = orjson.dumps(_cursor(rows[-1]) if more else None).decode()
    request.state.records = len(rows)
    shown = ",".join(row.json() for row in rows)
    return _json(200, f'{{"records":[{shown}],"next_cursor":{cursor}}}'.encode())


async def adjust_stock(request: Request, store: Store) -> Response:
    """POST …/inventory/{sku}/adjustments: change one item's quantity, never below zero."""
    _require_idempotency_key(request)
    resource, key = RESOURCES["inventory"], request.path_params["key"]
    body = await _body(request)

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

    return _write(request, store, body, apply)


def _write(request: Request, store: Store, body: bytes, apply: Callable[[], Result]) -> Response:
    """Carry out a write once for its idempotency key; refused writes are not remembered."""
    key = request.headers.get("Idempotency-Key")
    if key is None:
        with store.transaction():
            result = apply()
    else:
        digest = sha256(
            b"\n".join([request.method.encode(), request.url.path.encode(), body])
        ).digest()
        if (earlier := store.recall(key)) is not None:
            return _replay(request, earlier, digest)
        with store.transaction():
            result = apply()
            store.remember(key, Answer(digest, result.status, result.body))
    request.state.records = result.records
    return _json(result.status, result.body)


def _replay(request: Request, earlier: Answer, digest: bytes) -> Response:
    if earlier.digest != digest:
        raise ProblemError(
            422, "this Idempotency-Key was used for another request; nothing was changed"
        )
    request.state.replayed = True
    response = _json(earlier.status, earlier.body)
    response.headers["Idempotency-Replayed"] = "true"
    return response


def _require_idempotency_key(request: Request) -> None:
    if not request.headers.get("Idempotency-Key"):
        raise ProblemError(400, "this request needs an Idempotency-Key header; nothing was changed")


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise ProblemError(413, f"the body is larger than {MAX_BODY_BYTES} bytes")
    return bytes(body)


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


def _json(status: int, body: bytes) -> Response:
    return Response(body, status_code=status, media_type="application/json" if body else None)
