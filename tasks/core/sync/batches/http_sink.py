"""Sends batches of records to an application's HTTP API."""

from __future__ import annotations

from tasks.core.connectors.http.client import ApiClient
from tasks.core.connectors.http.response_fields import count_of
from tasks.core.sync.batches.sink import Sent


class HttpSink:
    """`POST <resource>/batch` with `{"records": […]}` and an idempotency key.

    The application answers with counts, {"created": …, "updated": …, "unchanged": …}, or refuses
    the whole batch with 422 and a problem document (RFC 9457) whose `errors` name the records.
    """

    def __init__(self, api: ApiClient, resource: str) -> None:
        self._api = api
        self._resource = resource

    def send(self, records: bytes, *, count: int, idempotency_key: str) -> Sent:
        """Hand over one batch; see `RecordSink.send`."""
        response = self._api.call(
            "POST",
            f"{self._resource}/batch",
            content=b'{"records":' + records + b"}",
            idempotency_key=idempotency_key,
            record=f"{count} {self._resource}",
        )
        answer = response.json()
        return Sent(
            *(
                count_of(answer, name, response.where)
                for name in ("created", "updated", "unchanged")
            )
        )
