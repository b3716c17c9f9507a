"""Checks events against the AsyncAPI document that their sender publishes.

Source: www.asyncapi.com/docs/reference/specification/v3.0.0, json-schema.org/draft/2020-12.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from jsonschema.exceptions import ValidationError  # type: ignore[import-untyped]
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from blocks.errors import BadPayloadError
from tasks.core.intake.inbox.delivery import Delivery

_BASE = "urn:published-events"
_NAMED_FAULTS = 5
_LONGEST_RULE = 80
_FRESH_FOR_S = 60


class PublishedEvents:
    """The events of one sender; threads may share it.

    Args:
        fetch: Fetches the document; its errors propagate. Called when the first event is checked,
            and again before an event is refused, in case the document has changed.
        clock: Monotonic seconds.
    """

    def __init__(
        self, fetch: Callable[[], Any], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._fetch = fetch
        self._clock = clock
        self._lock = threading.Lock()
        self._validators: dict[str, Draft202012Validator] = {}
        self._fetched_at_s: float | None = None

    def check(self, delivery: Delivery) -> dict[str, Any]:
        """Return the event if it is valid.

        Raises:
            BadPayloadError: It is invalid, or the sender publishes no event of that type; the
                message says where and which rule it breaks, without values.
            IntegrationError: As `fetch`.
        """
        document = delivery.json()
        self._refresh(older_than_s=None)
        faults = self._faults(delivery.event, document)
        if faults and self._refresh(older_than_s=_FRESH_FOR_S):
            faults = self._faults(delivery.event, document)
        if not faults:
            event: dict[str, Any] = document
            return event
        named = "; ".join(faults[:_NAMED_FAULTS])
        more = f" and {len(faults) - _NAMED_FAULTS} more" if len(faults) > _NAMED_FAULTS else ""
        raise BadPayloadError(
            f"it is not as its sender publishes it: {named}{more}; nothing was done",
            system=delivery.endpoint,
            operation=f"read {delivery.event or 'event'}",
            record=delivery.id,
        )

    def _refresh(self, *, older_than_s: float | None) -> bool:
        """Fetch the document if it is missing or older; return whether it was fetched."""
        with self._lock:
            if self._fetched_at_s is not None:
                age_s = self._clock() - self._fetched_at_s
                if older_than_s is None or age_s < older_than_s:
                    return False
            self._validators = _validators(self._fetch())
            self._fetched_at_s = self._clock()
            return True

    def _faults(self, event: str, document: Any) -> list[str]:
        validator = self._validators.get(event)
        if validator is None:
            return [f"there is no event {event!r}"]
        return [_told(error) for error in validator.iter_errors(document)]


def _validators(document: Any) -> dict[str, Draft202012Validator]:
    messages = dict(_messages(document))
    registry: Registry[Any] = Registry().with_resource(_BASE, DRAFT202012.create_resource(document))
    return {
        name: Draft202012Validator({"$ref": f"{_BASE}#{place}"}, registry=registry)
        for name, place in messages.items()
    }


def _messages(document: Any) -> Iterator[tuple[str, str]]:
    """Yield each message's name, and where in the document its payload's schema is."""
    try:
        for key, message in document["components"]["messages"].items():
            if "payload" in message:
                place = str(key).replace("~", "~0").replace("/", "~1")
                yield message.get("name", key), f"/components/messages/{place}/payload"
    except (TypeError, KeyError, AttributeError) as exc:
        raise BadPayloadError(
            "the document has no components.messages; is it AsyncAPI 3?",
            system="AsyncAPI document",
            operation="read published events",
        ) from exc


def _told(error: ValidationError) -> str:
    where = ".".join(map(str, error.absolute_path)) or "event"
    if error.validator == "required":
        missing = [name for name in error.validator_value if name not in error.instance]
        return f"{where}: {', '.join(missing)} is missing"
    rule = json.dumps(error.validator_value)
    shown = rule if len(rule) <= _LONGEST_RULE else rule[: _LONGEST_RULE - 1] + "…"
    return f"{where}: breaks {error.validator} {shown}"
