"""Registers webhooks at any API with a collection of them: created by POST, managed by id."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from blocks.errors import BadPayloadError, UpstreamRejectedError
from tasks.core import threads
from tasks.core.connectors.http.client import ApiClient, path_segment
from tasks.core.connectors.http.paging import fetch_records
from tasks.core.connectors.http.response_fields import optional_field
from tasks.core.registry.activation.registrar import (
    CreatedRegistration,
    DesiredRegistration,
    FoundRegistration,
    url_digest,
)
from tasks.core.registry.registrations import RestRegistration

_PINGS = 3
_PING_LOOKS = 6
_PING_PAUSE_S = 0.5
_MISSING = object()


class RestRegistrar:
    """The registrations of one collection.

    Args:
        api: The third party.
        registration: Where they are and what their fields are called.
        base_url: The API's base URL, for `place`.
        sleep: Waits for that many seconds.
    """

    def __init__(
        self,
        api: ApiClient,
        registration: RestRegistration,
        *,
        base_url: str,
        sleep: Callable[[float], None] = threads.sleep,
    ) -> None:
        self.place = f"{base_url.rstrip('/')}/{registration.path.strip('/')}"
        self._api = api
        self._it = registration
        self._path = registration.path.strip("/")
        self._sleep = sleep

    def find(
        self, desired: DesiredRegistration, *, remote_id: str | None, url_digests: Collection[str]
    ) -> list[FoundRegistration]:
        """As `Registrar.find`."""
        found = [
            each
            for item in fetch_records(self._api, self._path, self._it.pagination)
            if (each := self._found(item, desired, remote_id, url_digests)) is not None
        ]
        return sorted(found, key=lambda each: each.remote_id != remote_id)

    def create(self, desired: DesiredRegistration, secret: str | None) -> CreatedRegistration:
        """As `Registrar.create`."""
        answer = self._api.call(
            "POST",
            self._path,
            json=self._body(desired, secret),
            operation="register",
            record=desired.marker,
        ).json()
        made = optional_field(answer, self._it.secret_field)
        return CreatedRegistration(
            remote_id=self._id(answer),
            secret=made if secret is None and isinstance(made, str) else None,
        )

    def update(
        self, desired: DesiredRegistration, found: FoundRegistration, secret: str | None
    ) -> None:
        """As `Registrar.update`."""
        self._api.call(
            self._it.update_method,
            self._item(found.remote_id),
            json=self._body(desired, secret),
            repeatable=True,
            operation="change registration",
            record=desired.marker,
        )

    def delete(self, remote_id: str) -> None:
        """As `Registrar.delete`."""
        try:
            self._api.call(
                "DELETE",
                self._item(remote_id),
                operation="remove registration",
                record=remote_id,
            )
        except UpstreamRejectedError as exc:
            if exc.status not in (404, 410):
                raise

    def ping(self, remote_id: str) -> str | None:
        """As `Registrar.ping`."""
        if self._it.ping is None:
            return None
        heard = None
        for _ in range(_PINGS):  # a single ping is not retried, and may hit a busy gateway
            heard = self._pinged(self._item(remote_id))
            if heard is None and self._it.ping_result_field is None:
                return "the ping was taken"
            if _is_good(heard):
                return f"the ping arrived: we answered {heard}"
        raise UpstreamRejectedError(
            f"the ping did not arrive: it heard {heard if isinstance(heard, int) else 'nothing'} "
            "from us; is the public URL right, and does the gateway run with this secret?",
            system=self._api.system,
            operation="ping",
            record=remote_id,
        )

    def _pinged(self, item: str) -> Any:
        """Return the status of our response to one ping, if the third party reports it."""
        answer = self._api.call(
            "POST", f"{item}/{self._it.ping}", repeatable=True, operation="ping"
        ).json()
        if self._it.ping_result_field is None:
            return None
        heard = optional_field(answer, self._it.ping_result_field)
        for _ in range(_PING_LOOKS):
            if _is_good(heard):
                break
            self._sleep(_PING_PAUSE_S)
            answer = self._api.call("GET", item, operation="look at ping").json()
            heard = optional_field(answer, self._it.ping_result_field)
        return heard

    def _found(
        self,
        item: Any,
        desired: DesiredRegistration,
        remote_id: str | None,
        url_digests: Collection[str],
    ) -> FoundRegistration | None:
        url = str(optional_field(item, self._it.url_field))
        id_ = self._id(item)
        marked = self._it.marker_field is None or (
            optional_field(item, self._it.marker_field) == desired.marker
        )
        if id_ != remote_id and not (marked and url_digest(url) in url_digests):
            return None
        return FoundRegistration(id_, tuple(sorted(set(self._differences(item, desired)))))

    def _differences(self, item: Any, desired: DesiredRegistration) -> Iterator[str]:
        for path, value in _leaves(self._body(desired, None)):
            is_there = optional_field(item, path, _MISSING)
            # a field that the list does not show is not compared: it would always differ
            if is_there is not _MISSING and _unordered(is_there) != _unordered(value):
                yield path

    def _body(self, desired: DesiredRegistration, secret: str | None) -> dict[str, Any]:
        body: dict[str, Any] = _copied(self._it.body)
        _put(body, self._it.url_field, desired.url)
        if self._it.events_field is not None:
            _put(body, self._it.events_field, list(self._it.events))
        if self._it.marker_field is not None:
            _put(body, self._it.marker_field, desired.marker)
        if secret is not None:
            _put(body, self._it.secret_field, secret)
        return body

    def _item(self, remote_id: str) -> str:
        return f"{self._path}/{path_segment(remote_id)}"

    def _id(self, item: Any) -> str:
        id_ = optional_field(item, self._it.id_field)
        if isinstance(id_, bool) or not isinstance(id_, int | str) or id_ == "":
            raise BadPayloadError(
                f"a registration has no {self._it.id_field}; correct id_field in the declaration",
                system=self._api.system,
                operation="read registrations",
            )
        return str(id_)


def _is_good(status: Any) -> bool:
    return isinstance(status, int) and 200 <= status < 300


def _leaves(value: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _leaves(inner, f"{before}{name}.")
        else:
            yield f"{before}{name}", inner


def _unordered(value: Any) -> Any:
    return sorted(map(str, value)) if isinstance(value, list) else value


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _copied(inner) for name, inner in value.items()}
    return value


def _put(body: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for name in parents:
        body = body.setdefault(name, {})
    body[last] = value
