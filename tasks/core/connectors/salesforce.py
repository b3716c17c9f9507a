"""Fetches Salesforce records by id, many with one call, because daily calls are limited.

Source: REST API: sObject collections, queryAll.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from blocks.errors import BadPayloadError, MisconfiguredError, UpstreamRejectedError
from tasks.core.connectors.http.client import ApiClient
from tasks.core.connectors.http.pagination import NextUrl
from tasks.core.connectors.http.paging import fetch_records

MAX_IDS = 200
"""Most ids that fit into the URL of one query; collections take 2000."""

_ID = re.compile(r"[A-Za-z0-9]{15}([A-Za-z0-9]{3})?", re.ASCII)
_UNKNOWN_FIELD = "No such column"  # what INVALID_FIELD says
_PAGES = NextUrl(records_path="records", next_path="nextRecordsUrl")


@dataclass(frozen=True, slots=True)
class Fetched:
    """The result for one id.

    Attributes:
        record: The requested fields; None if there is no such record that we may see.
        is_deleted: Whether it is in the recycle bin.
    """

    record: dict[str, Any] | None = field(repr=False)
    is_deleted: bool = False


def checked_id(value: object, *, record: str) -> str:
    """Return the value if it is an id of 15 or 18 characters.

    Args:
        value: What was received.
        record: What it was received with, for errors.

    Raises:
        BadPayloadError: It is not an id.
    """
    if isinstance(value, str) and _ID.fullmatch(value):
        return value
    raise BadPayloadError(
        "the notification's record has no Id of 15 or 18 letters and digits; add Id to the fields "
        "of the outbound message",
        system="Salesforce",
        operation="read notification",
        record=record,
    )


def fetch_by_id(
    api: ApiClient, object_type: str, fields: Sequence[str], ids: Sequence[str]
) -> dict[str, Fetched]:
    """Fetch records with one call; a second call finds out which of the missing were deleted.

    Args:
        api: Salesforce; the base URL names the API version.
        object_type: E.g. "Contact".
        fields: Names of the fields to fetch.
        ids: Up to `MAX_IDS` ids that `checked_id` accepts.

    Returns:
        Id to result, for each id.

    Raises:
        MisconfiguredError: A field is unknown, or hidden from the block's user: Salesforce refuses
            the whole call, whatever the ids.
        IntegrationError: As in `ApiClient.call`.
    """
    try:
        answer = api.call(
            "POST",
            f"composite/sobjects/{object_type}",
            json={"ids": list(ids), "fields": list(fields)},
            repeatable=True,
            operation="fetch records",
            record=object_type,
        ).json()
    except UpstreamRejectedError as exc:
        if _UNKNOWN_FIELD not in exc.said:
            raise
        raise MisconfiguredError(
            f"it says: {exc.said}; fetch other fields, or let the block's user see this one",
            system=exc.system,
            operation=exc.operation,
            record=exc.record,
        ) from exc
    if not isinstance(answer, list) or len(answer) != len(ids):
        raise BadPayloadError(
            "the answer does not hold one record for each id; check the API version in base_url",
            system=api.system,
            operation="fetch records",
            record=object_type,
        )
    found = {id_: Fetched(record) for id_, record in zip(ids, answer, strict=True)}
    missing = [id_ for id_, fetched in found.items() if fetched.record is None]
    if missing:
        deleted = _deleted(api, object_type, missing)
        found |= {id_: Fetched(None, is_deleted=id_[:15] in deleted) for id_ in missing}
    return found


def _deleted(api: ApiClient, object_type: str, ids: Sequence[str]) -> set[str]:
    listed = ", ".join(f"'{id_}'" for id_ in ids)
    query = f"SELECT Id, IsDeleted FROM {object_type} WHERE Id IN ({listed})"  # noqa: S608 - ids
    records = fetch_records(api, "queryAll", _PAGES, params={"q": query})
    return {str(record["Id"])[:15] for record in records if record.get("IsDeleted")}
