"""Sends records to an API in batches that are safe to repeat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from tasks.core.connectors.http.client import ApiClient


def send_batch(
    client: ApiClient,
    path: str,
    records: bytes | Sequence[Mapping[str, Any]],
    *,
    idempotency_key: str,
    envelope: str = "records",
) -> Any:
    """Post one batch as `{"records": […]}` and return the response's JSON.

    Args:
        client: The API.
        path: As in `ApiClient.call`.
        records: Objects, or a JSON array that is encoded already.
        idempotency_key: The same for the same records, e.g. file version and batch number; not
            the run's id, which differs in the next run.
        envelope: The field that holds the records.

    Raises:
        UpstreamRejectedError: It is refused; `details` names the bad records by index, if known.
        IntegrationError: As in `ApiClient.call`.
    """
    encoded = records if isinstance(records, bytes) else orjson.dumps(records, default=str)
    content = b"{" + orjson.dumps(envelope) + b":" + encoded + b"}"
    return client.call("POST", path, content=content, idempotency_key=idempotency_key).json()
