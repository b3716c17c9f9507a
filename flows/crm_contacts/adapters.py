"""The CRM and the application as the two sides that are kept in step, each by its own API.

A write that may have been carried out is simply done again: it names the version, the external id
or the new id that it is for, so the second time it is refused and both sides are read again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pydantic import ValidationError

from blocks.errors import BadPayloadError, UpstreamRejectedError
from flows.crm_contacts.contacts import CRM, OWN_APP, CrmContact, OwnContact, crm_properties
from tasks.api import ApiClient, BodyCursor, PaginationStyle, path_segment
from tasks.two_way import ChangedMeanwhileError, FoundRecord, Snapshot, Value

# how own app's events name the origin of our changes, for others; nothing here depends on it
_SOURCE = {"X-Source": "crm-contacts"}


class CrmRecords:
    """The CRM's contacts; as `tasks.core.sync.two_way.records.Records`."""

    side = CRM
    name = "CRM"
    path = "contacts"
    pages: PaginationStyle = BodyCursor(records_path="results", cursor_path="paging.next_cursor")
    page_size: Mapping[str, int] = {"limit": 200}

    def __init__(self, api: ApiClient) -> None:
        self.api = api

    def read(self, record_id: str) -> FoundRecord | None:
        """A contact, or the one it was merged into."""
        return _read(self.api, f"contacts/{path_segment(record_id)}", self.found)

    def find_made_for(self, marker: str) -> FoundRecord | None:
        """The contact with this external id."""
        return next(iter(self._search(external_id=marker)), None)

    def find_like(self, found: FoundRecord) -> list[FoundRecord]:
        """Contacts with the same e-mail address."""
        email = found.snapshot.values["email"]
        return self._search(email_address=email) if email else []

    def chosen_id(self, other: FoundRecord) -> str | None:
        """The CRM gives ids itself."""
        return None

    def create(
        self, values: Mapping[str, Value], *, marker: str, record_id: str | None
    ) -> FoundRecord:
        """Make a contact; the external id keeps a second one from being made."""
        body = {"properties": crm_properties(values), "external_id": marker}
        with _watching(marker, self.api.system):
            answer = self.api.call(
                "POST", "contacts", json=body, repeatable=True, operation="create contact"
            )
        return self.found(answer.json())

    def update(self, found: FoundRecord, values: Mapping[str, Value]) -> FoundRecord:
        """Change these properties of this version."""
        with _watching(found.id, self.api.system):
            answer = self.api.call(
                "PATCH",
                f"contacts/{path_segment(found.id)}",
                json={"properties": crm_properties(values)},
                headers={"If-Match": found.version},
                repeatable=True,
                operation="update contact",
                record=found.id,
            )
        return self.found(answer.json())

    def delete(self, found: FoundRecord) -> None:
        """Delete this version."""
        _delete(self.api, found)

    def found(self, record: Any) -> FoundRecord:
        """A contact as the API shows it.

        Raises:
            BadPayloadError: It is not as the API describes it.
        """
        contact = _parsed(CrmContact, record, self.api.system)
        version = f'"{contact.version}"'
        return FoundRecord(contact.id, version, contact.snapshot(), contact.external_id)

    def _search(self, **wanted: str) -> list[FoundRecord]:
        answer = self.api.call("GET", "contacts", params=wanted, operation="find contact")
        return sorted(map(self.found, answer.json()["results"]), key=lambda each: each.id)


class OwnAppRecords:
    """The application's contacts; as `tasks.core.sync.two_way.records.Records`.

    Args:
        api: The application.
        earlier: Contact id to the contact as an event told of it.
    """

    side = OWN_APP
    name = "own app"
    path = "contacts"
    pages: PaginationStyle = BodyCursor(records_path="records")
    page_size: Mapping[str, int] = {"limit": 200}

    def __init__(self, api: ApiClient, earlier: Mapping[str, Snapshot] | None = None) -> None:
        self.api = api
        self._earlier = earlier or {}

    def read(self, record_id: str) -> FoundRecord | None:
        """A contact."""
        return _read(self.api, f"contacts/{path_segment(record_id)}", self.found)

    def find_made_for(self, marker: str) -> FoundRecord | None:
        """Contacts are made under an id that was chosen before: they are found by that."""
        return None

    def find_like(self, found: FoundRecord) -> list[FoundRecord]:
        """Contacts with the same e-mail address."""
        email = found.snapshot.values["email"]
        if not email:
            return []
        answer = self.api.call("GET", "contacts", params={"email": email}, operation="find contact")
        return sorted(map(self.found, answer.json()["records"]), key=lambda each: each.id)

    def chosen_id(self, other: FoundRecord) -> str | None:
        """Contacts that began in the CRM say so."""
        return f"crm-{other.id}"

    def create(
        self, values: Mapping[str, Value], *, marker: str, record_id: str | None
    ) -> FoundRecord:
        """Make a contact, if there is none with this id."""
        assert record_id is not None  # noqa: S101 - `chosen_id` gives one
        self._require(values, record_id, ("name", "email"))
        with _watching(record_id, self.api.system):
            answer = self.api.call(
                "PUT",
                f"contacts/{path_segment(record_id)}",
                json={"contact_id": record_id, **values},
                headers={"If-None-Match": "*", **_SOURCE},
                operation="create contact",
                record=record_id,
            )
        return self.found(answer.json())

    def update(self, found: FoundRecord, values: Mapping[str, Value]) -> FoundRecord:
        """Change these fields of this version."""
        self._require(values, found.id, [name for name in ("name", "email") if name in values])
        with _watching(found.id, self.api.system):
            answer = self.api.call(
                "PATCH",
                f"contacts/{path_segment(found.id)}",
                json=dict(values),
                headers={"If-Match": found.version, **_SOURCE},
                repeatable=True,
                operation="update contact",
                record=found.id,
            )
        return self.found(answer.json())

    def delete(self, found: FoundRecord) -> None:
        """Delete this version."""
        _delete(self.api, found, headers=_SOURCE)

    def found(self, record: Any) -> FoundRecord:
        """A contact as the API shows it.

        Raises:
            BadPayloadError: It is not as the API describes it.
        """
        contact = _parsed(OwnContact, record, self.api.system)
        snapshot = contact.snapshot(self._earlier.get(contact.contact_id))
        return FoundRecord(contact.contact_id, f'"{contact.version}"', snapshot)

    def _require(
        self, values: Mapping[str, Value], record_id: str, names: tuple[str, ...] | list[str]
    ) -> None:
        missing = [name for name in names if not values.get(name)]
        if missing:
            raise BadPayloadError(
                f"the application needs {' and '.join(missing)}, which the CRM does not have; add "
                "it there, and the contact follows",
                system=self.api.system,
                operation="write contact",
                record=record_id,
            )


def _read(api: ApiClient, path: str, found: Any) -> FoundRecord | None:
    try:
        answer = api.call("GET", path, operation="read contact")
    except UpstreamRejectedError as error:
        if error.status == 404:
            return None
        raise
    read: FoundRecord = found(answer.json())
    return read


def _delete(
    api: ApiClient, found: FoundRecord, *, headers: Mapping[str, str] | None = None
) -> None:
    with _watching(found.id, api.system):
        api.call(
            "DELETE",
            f"contacts/{path_segment(found.id)}",
            headers={"If-Match": found.version, **(headers or {})},
            operation="delete contact",
            record=found.id,
        )


@contextmanager
def _watching(record: str, system: str) -> Iterator[None]:
    """What was changed, made or deleted since it was read is looked at again."""
    try:
        yield
    except UpstreamRejectedError as error:
        if error.status in (404, 409, 412):
            raise ChangedMeanwhileError(
                "it was changed while it was brought in step; it is tried again",
                system=system,
                operation="write contact",
                record=record,
            ) from error
        raise


def _parsed(model: Any, record: Any, system: str) -> Any:
    try:
        return model.model_validate(record)
    except ValidationError as exc:
        fault = exc.errors(include_input=False, include_url=False)[0]
        raise BadPayloadError(
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}; the API changed",
            system=system,
            operation="read contact",
        ) from exc
