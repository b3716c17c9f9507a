"""What a handler gets to handle, and what it says became of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from blocks.errors import BadPayloadError
from tasks.core.intake.inbox.reply import Reply

ModelT = TypeVar("ModelT", bound=BaseModel)
_NAMED_FAULTS = 5


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event, leased from the inbox.

    Attributes:
        id: Stable over attempts and replays.
        integration: Whose run leased it.
        endpoint: Where it came in.
        event: The sender's name for what happened.
        content_type: Of the raw body.
        raw_headers: JSON `[[name, value], …]`, as received.
        body: The raw request body; a batch's deliveries have the same one.
        payload: JSON of this event.
        received_at: Aware UTC instant.
        attempt: 1 for the first; a replay counts from 1 again.
        ordering_key: Deliveries with the same one are handled in order of arrival.
        generation: Grows when a replay shall have its effects once more.
        lease_token: Proves the lease to the inbox.
        lapsed: The last lease ended without an outcome: it may have killed its process.
    """

    id: str
    integration: str
    endpoint: str
    event: str
    content_type: str
    raw_headers: bytes
    body: bytes
    payload: bytes
    received_at: datetime
    attempt: int = 1
    ordering_key: str | None = None
    generation: int = 0
    lease_token: int = 0
    lapsed: bool = False

    @classmethod
    def sample(cls, payload: Any, *, event: str, integration: str, id: str) -> Delivery:  # noqa: A002
        """A delivery that never was in the inbox, to try a handler with."""
        body = json.dumps(payload).encode()
        return cls(
            id=id,
            integration=integration,
            endpoint="sample",
            event=event,
            content_type="application/json",
            raw_headers=b"[]",
            body=body,
            payload=body,
            received_at=datetime.now(UTC),
        )

    @property
    def idempotency_key(self) -> str:
        """What effects carry so that none happens twice: the same for every attempt.

        A replay has the same key, so effects that were completed are not repeated, unless it
        was asked for new effects.
        """
        return self.id if self.generation == 0 else f"{self.id}.{self.generation}"

    def json(self) -> Any:
        """The event, parsed.

        Raises:
            BadPayloadError: It is not JSON.
        """
        try:
            return json.loads(self.payload)
        except (ValueError, RecursionError) as exc:
            raise BadPayloadError(
                "the payload is not JSON; look at the stored body and ask the sender",
                system=self.endpoint,
                operation="parse payload",
                record=self.id,
            ) from exc

    def parse(self, model: type[ModelT]) -> ModelT:
        """The event as the model describes it.

        Raises:
            BadPayloadError: It is not JSON, or not like that; says where, without the values.
        """
        document = self.json()
        try:
            return model.model_validate(document)
        except ValidationError as exc:
            faults = exc.errors(include_input=False, include_url=False, include_context=False)
            named = "; ".join(
                f"{'.'.join(map(str, fault['loc'])) or 'payload'}: {fault['msg']}"
                for fault in faults[:_NAMED_FAULTS]
            )
            more = f" and {len(faults) - _NAMED_FAULTS} more" if len(faults) > _NAMED_FAULTS else ""
            raise BadPayloadError(
                f"{named}{more}; nothing was done",
                system=self.endpoint,
                operation=f"read {self.event or 'event'}",
                record=self.id,
            ) from exc

    def header(self, name: str) -> str | None:
        """The first header of that name in whatever case, or None."""
        for found, value in json.loads(self.raw_headers):
            if found.lower() == name.lower():
                return str(value)
        return None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a handler says became of a delivery; errors it raises, returning nothing is done.

    Attributes:
        status: "done", "ignored", "dead_letter", "cancelled" or "handed over".
        message: What the operator reads.
        integration: Who takes it on, when it is handed over.
        reply: What the caller gets who waits for it.
    """

    status: str
    message: str = ""
    integration: str | None = None
    reply: Reply | None = None


def done(message: str = "", *, reply: Reply | None = None) -> Outcome:
    """It had its effects."""
    return Outcome("done", message, reply=reply)


def ignored(reason: str, *, reply: Reply | None = None) -> Outcome:
    """It was understood and needs nothing done."""
    return Outcome("ignored", reason, reply=reply)


def cancelled(reason: str) -> Outcome:
    """Whoever asked for it does not want it any more."""
    return Outcome("cancelled", reason)


def dead_letter(reason: str) -> Outcome:
    """It cannot be handled until somebody does something; the run fails and says so."""
    return Outcome("dead_letter", reason)


def handed_to(integration: str) -> Outcome:
    """A sibling flow takes it on, as the same delivery."""
    return Outcome("handed over", f"handed to {integration}", integration)
