"""The events that the application sends, published as an AsyncAPI document.

Each is {"id", "type", "timestamp", "data", "source"}: `data` is the whole record as it is after
the change (before it, when it was deleted), `source` the `X-Source` of whoever made the change.

Source: www.asyncapi.com/docs/reference/specification/v3.0.0.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from pydantic.json_schema import models_json_schema

from sandbox.systems.own_app.records import RESOURCES

EVENT_TYPES = tuple(
    f"{resource.singular}.{what}"
    for resource in RESOURCES.values()
    for what in ("created", "updated", "deleted")
)
_SCHEMAS = "#/components/schemas/"


@cache
def asyncapi_document() -> dict[str, Any]:
    """The document; every event's payload is a JSON Schema in it."""
    messages = {name: {"$ref": f"#/components/messages/{name}"} for name in EVENT_TYPES}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Own app",
            "version": "1",
            "description": "What is sent to webhooks, signed by Standard Webhooks.",
        },
        "defaultContentType": "application/json",
        "channels": {
            "webhook": {
                "address": None,
                "description": "The URL of each subscription to the message's event type.",
                "messages": messages,
            }
        },
        "operations": {"sendEvent": {"action": "send", "channel": {"$ref": "#/channels/webhook"}}},
        "components": {
            "messages": {
                name: {"name": name, "payload": {"$ref": f"{_SCHEMAS}{name}"}}
                for name in EVENT_TYPES
            },
            "schemas": _record_schemas() | _event_schemas(),
        },
    }


def _record_schemas() -> dict[str, Any]:
    _, definitions = models_json_schema(
        [(resource.record, "serialization") for resource in RESOURCES.values()],
        ref_template=f"{_SCHEMAS}{{model}}",
    )
    schemas: dict[str, Any] = definitions["$defs"]
    for resource in RESOURCES.values():
        schema = schemas[resource.record.__name__]
        schema["properties"] |= {
            "changed_at": {"type": "string", "format": "date-time"},
            "version": {"type": "integer", "minimum": 1},
        }
        schema["required"] = sorted(schema["properties"])
    return schemas


def _event_schemas() -> dict[str, Any]:
    return {
        f"{resource.singular}.{what}": {
            "type": "object",
            "properties": {
                "id": {"type": "string", "pattern": "^evt_"},
                "type": {"const": f"{resource.singular}.{what}"},
                "timestamp": {"type": "string", "format": "date-time"},
                "data": {"$ref": f"{_SCHEMAS}{resource.record.__name__}"},
                "source": {"type": ["string", "null"]},
            },
            "required": ["id", "type", "timestamp", "data", "source"],
            "additionalProperties": False,
        }
        for resource in RESOURCES.values()
        for what in ("created", "updated", "deleted")
    }
