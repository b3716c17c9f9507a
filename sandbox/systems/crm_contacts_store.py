"""The CRM's contacts: versions, change instants by property, merges; in a file if there is one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson

PROPERTIES = (
    "display_name",
    "email_address",
    "phone_number",
    "organisation",
    "lifecycle_stage",
)
_LONGEST = 200
# type of event, and the contact as it is afterwards, or what is left to say of it
Tell = Callable[[str, dict[str, Any]], None]


class RefusedError(Exception):
    """What the API answers instead."""

    def __init__(self, status: int, message: str, **more: Any) -> None:
        super().__init__(message)
        self.status = status
        self.more = more


@dataclass
class Contact:
    """One contact; all instants are RFC 3339 in UTC."""

    id: str
    properties: dict[str, str | None]
    modified: dict[str, str]
    created_at: str
    updated_at: str
    version: int = 1
    external_id: str | None = None
    merged_ids: list[str] = field(default_factory=list)

    def shown(self) -> dict[str, Any]:
        """As the API shows it."""
        return vars(self) | {"properties": dict(self.properties), "modified": dict(self.modified)}


class CrmContacts:
    """All contacts; threads may share it.

    Args:
        file: Where they are kept; None to forget them at the end.
        tell: Told of each change.
    """

    def __init__(self, file: Path | None, tell: Tell) -> None:
        self._file = file
        self._tell = tell
        self._lock = threading.RLock()
        self._contacts: dict[str, Contact] = {}
        self._merged_into: dict[str, str] = {}
        self._last_id = 1000
        self._last_at = datetime.min.replace(tzinfo=UTC)
        if file is not None and file.exists():
            self._restore(orjson.loads(file.read_bytes()))

    def all(self) -> list[dict[str, Any]]:
        """All contacts in the order of their last change."""
        with self._lock:
            contacts = sorted(self._contacts.values(), key=lambda each: (each.updated_at, each.id))
            return [contact.shown() for contact in contacts]

    def get(self, contact_id: str) -> dict[str, Any]:
        """A contact, or the one it was merged into."""
        with self._lock:
            while contact_id in self._merged_into:
                contact_id = self._merged_into[contact_id]
            return self._existing(contact_id).shown()

    def add(
        self, properties: Mapping[str, Any], *, external_id: str | None = None
    ) -> dict[str, Any]:
        """Make a contact."""
        with self._lock:
            known = [c for c in self._contacts.values() if c.external_id == external_id]
            if external_id is not None and known:
                raise RefusedError(409, "external_id is in use", existing_id=known[0].id)
            self._last_id += 1
            at = self._next_instant()
            values = dict.fromkeys(PROPERTIES) | _valid(properties)
            contact = Contact(
                f"C-{self._last_id}",
                values,
                dict.fromkeys(PROPERTIES, at),
                at,
                at,
                external_id=external_id,
            )
            self._contacts[contact.id] = contact
            return self._changed("contact.created", contact)

    def change(
        self, contact_id: str, properties: Mapping[str, Any], *, if_match: str | None = None
    ) -> dict[str, Any]:
        """Change some properties of a contact."""
        with self._lock:
            contact = self._existing(contact_id, if_match)
            given = _valid(properties)
            changed = {n: v for n, v in given.items() if contact.properties[n] != v}
            if not changed:
                return contact.shown()
            at = self._next_instant()
            contact.properties |= changed
            contact.modified |= dict.fromkeys(changed, at)
            contact.updated_at, contact.version = at, contact.version + 1
            return self._changed("contact.updated", contact)

    def remove(self, contact_id: str, *, if_match: str | None = None) -> None:
        """Delete a contact."""
        with self._lock:
            contact = self._existing(contact_id, if_match)
            del self._contacts[contact_id]
            self._changed("contact.deleted", contact)

    def merge(self, contact_id: str, *, into: str) -> dict[str, Any]:
        """Merge a contact into another, which takes over what it does not know itself."""
        with self._lock:
            loser, survivor = self._existing(contact_id), self._existing(into)
            if loser is survivor:
                raise RefusedError(422, "a contact cannot be merged into itself")
            del self._contacts[contact_id]
            self._merged_into[contact_id] = into
            at = self._next_instant()
            for name in PROPERTIES:
                if survivor.properties[name] is None and loser.properties[name] is not None:
                    survivor.properties[name] = loser.properties[name]
                    survivor.modified[name] = at
            survivor.merged_ids += [contact_id, *loser.merged_ids]
            survivor.updated_at, survivor.version = at, survivor.version + 1
            return self._changed("contact.merged", survivor, merged_id=contact_id)

    def clear(self) -> None:
        """Forget all contacts."""
        with self._lock:
            self._contacts.clear()
            self._merged_into.clear()

    def _existing(self, contact_id: str, if_match: str | None = None) -> Contact:
        contact = self._contacts.get(contact_id)
        if if_match is not None and (contact is None or if_match != f'"{contact.version}"'):
            raise RefusedError(412, "the contact is not of this version any more")
        if contact is None:
            raise RefusedError(404, "there is no such contact")
        return contact

    def _changed(self, event: str, contact: Contact, **more: Any) -> dict[str, Any]:
        shown = contact.shown()
        if self._file is not None:
            document = {
                "contacts": [vars(each) for each in self._contacts.values()],
                "merged_into": self._merged_into,
                "last_id": self._last_id,
            }
            unfinished = self._file.with_suffix(".part")
            unfinished.write_bytes(orjson.dumps(document))
            unfinished.replace(self._file)
        self._tell(event, {"contact": shown, **more})
        return shown

    def _restore(self, document: Mapping[str, Any]) -> None:
        for each in document["contacts"]:
            self._contacts[each["id"]] = Contact(**each)
        self._merged_into = dict(document["merged_into"])
        self._last_id = document["last_id"]

    def _next_instant(self) -> str:
        # strictly increasing, so that paging by it misses nothing
        self._last_at = max(datetime.now(UTC), self._last_at + timedelta(microseconds=1))
        return self._last_at.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _valid(properties: Mapping[str, Any]) -> dict[str, str | None]:
    """The properties as the CRM keeps them: e-mail addresses in small letters."""
    values: dict[str, str | None] = {}
    for name, value in properties.items():
        if name not in PROPERTIES:
            raise RefusedError(422, f"there is no property {name!r}"[:_LONGEST])
        if value is not None and (not isinstance(value, str) or len(value) > _LONGEST):
            raise RefusedError(422, f"{name} must be text of at most {_LONGEST} characters")
        values[name] = (value or None) and (value.lower() if name == "email_address" else value)
    return values
