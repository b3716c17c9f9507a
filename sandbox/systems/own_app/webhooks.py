"""What each route of webhook subscriptions does.

A subscription is `{id, url, events, description, created_at, last_status}`; its secret is told
once, in the answer to its creation.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, BeforeValidator, Field, StringConstraints, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from sandbox.systems.own_app.answering import Result, json_response, read_body, write
from sandbox.systems.own_app.events import EVENT_TYPES
from sandbox.systems.own_app.outbox import Outgoing, Webhook
from sandbox.systems.own_app.problems import ProblemError, invalid_body
from sandbox.systems.own_app.records import ApiModel, Text
from sandbox.systems.own_app.store import Store


def _known(event: object) -> object:
    if event not in EVENT_TYPES:
        raise ValueError(f"there is no such event; there are {', '.join(EVENT_TYPES)}")
    return event


Url = Annotated[str, StringConstraints(pattern=r"^https?://[^\s]+$", max_length=2000)]
EventType = Annotated[str, BeforeValidator(_known)]
Secret = Annotated[str, StringConstraints(pattern=r"^whsec_[A-Za-z0-9+/]{16,}={0,2}$")]


class Subscription(ApiModel):
    """What a subscriber asks for."""

    url: Url
    events: list[EventType] = Field(min_length=1)
    description: Text = ""
    secret: Secret | None = None


class SubscriptionChange(ApiModel):
    """What a subscriber changes; the rest stays as it is."""

    url: Url | None = None
    events: list[EventType] | None = Field(default=None, min_length=1)
    description: Text | None = None
    secret: Secret | None = None


async def add_webhook(request: Request, store: Store) -> Response:
    """POST …/webhooks: subscribe; the only answer that tells the secret."""
    body = await read_body(request)

    def apply() -> Result:
        asked = _valid(Subscription, body)
        webhook = store.outbox.add(**asked.model_dump())
        return Result(201, orjson.dumps(webhook.shown() | {"secret": webhook.secret}))

    return write(request, store, body, apply)


async def list_webhooks(_request: Request, store: Store) -> Response:
    """GET …/webhooks: all subscriptions, oldest first."""
    shown = [webhook.shown() for webhook in store.outbox.all()]
    return json_response(200, orjson.dumps({"webhooks": shown}))


async def get_webhook(request: Request, store: Store) -> Response:
    """GET …/webhooks/{id}: one subscription."""
    return json_response(200, orjson.dumps(_existing(request, store).shown()))


async def change_webhook(request: Request, store: Store) -> Response:
    """PATCH …/webhooks/{id}: change what is given."""
    body = await read_body(request)

    def apply() -> Result:
        webhook = _existing(request, store)
        asked = _valid(SubscriptionChange, body).model_dump(exclude_none=True)
        changed = webhook._replace(**asked)
        store.outbox.replace(changed)
        return Result(200, orjson.dumps(changed.shown()))

    return write(request, store, body, apply)


async def remove_webhook(request: Request, store: Store) -> Response:
    """DELETE …/webhooks/{id}: end a subscription."""

    def apply() -> Result:
        store.outbox.remove(_existing(request, store).id)
        return Result(204, b"")

    return write(request, store, await read_body(request), apply)


def ping_webhook(
    send: Callable[[Outgoing], Awaitable[int | None]],
) -> Callable[[Request, Store], Awaitable[Response]]:
    """POST …/webhooks/{id}/ping: send an event of type ping now, and tell how it was answered."""

    async def ping(request: Request, store: Store) -> Response:
        event = store.outbox.ping(_existing(request, store))
        status = await send(event)
        with store.transaction():
            store.outbox.note([(event, status)])
        answer = {"delivered": status is not None and 200 <= status < 300, "status": status}
        return json_response(200, orjson.dumps(answer))

    return ping


def _existing(request: Request, store: Store) -> Webhook:
    id_ = request.path_params["id"]
    webhook = store.outbox.get(id_)
    if webhook is None:
        raise ProblemError(404, f"there is no webhook {id_!r}")
    return webhook


def _valid(model: type[BaseModel], body: bytes) -> Any:
    try:
        return model.model_validate_json(body)
    except ValidationError as exc:
        raise invalid_body(exc) from exc
