"""Registers Salesforce outbound messages, each with the workflow rule that sends it.

The rule is created after its message and removed before it, so that no rule is orphaned. Both have
the same developer name, built from integration and registration.

Source: Tooling API, objects WorkflowOutboundMessage and WorkflowRule.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from blocks.errors import MisconfiguredError, UpstreamRejectedError
from tasks.core.connectors.http.client import ApiClient, path_segment
from tasks.core.connectors.http.errors import Where
from tasks.core.connectors.http.response_fields import field
from tasks.core.registry.activation.registrar import (
    CreatedRegistration,
    DesiredRegistration,
    FoundRegistration,
    url_digest,
)
from tasks.core.registry.registrations import SalesforceRegistration

_MESSAGE = "WorkflowOutboundMessage"
_RULE = "WorkflowRule"
_WHEN = {
    "created": ("onCreateOnly", "TRUE"),
    "updated": ("onAllChanges", "NOT(ISNEW())"),
    "created-or-updated": ("onAllChanges", "TRUE"),
}


class SalesforceRegistrar:
    """The outbound messages of one object type.

    Args:
        api: Salesforce; the base URL names the API version: https://….my.salesforce.com/services/
            data/v62.0.
        registration: Which changes of which object to send.
        base_url: The API's base URL, for `place`.
    """

    def __init__(
        self, api: ApiClient, registration: SalesforceRegistration, *, base_url: str
    ) -> None:
        self.place = f"{base_url.rstrip('/')}/tooling/{_MESSAGE}/{registration.object}"
        self._api = api
        self._it = registration

    def find(
        self, desired: DesiredRegistration, *, remote_id: str | None, url_digests: Collection[str]
    ) -> list[FoundRegistration]:
        """As `Registrar.find`; at most one, because names are unique."""
        id_ = self._id_of(_MESSAGE, _developer_name(desired))
        message = None if id_ is None else self._read(_MESSAGE, id_)
        if id_ is None or message is None:
            return []
        metadata = message["Metadata"]
        if id_ != remote_id and url_digest(str(metadata.get("endpointUrl"))) not in url_digests:
            return []  # another installation's, perhaps
        return [FoundRegistration(id_, tuple(self._differences(desired, metadata)))]

    def create(self, desired: DesiredRegistration, secret: str | None) -> CreatedRegistration:
        """As `Registrar.create`; Salesforce does not sign, so there is no secret.

        Raises:
            MisconfiguredError: There is one with our name that calls another URL.
        """
        if self._id_of(_MESSAGE, _developer_name(desired)) is not None:
            raise MisconfiguredError(
                f"there is an outbound message {_developer_name(desired)} that calls somewhere "
                "else, perhaps for another installation; it is left alone: rename the "
                "registration, or remove the message in Salesforce",
                system=self._api.system,
                operation="register",
                record=desired.marker,
            )
        id_ = self._make(_MESSAGE, desired, self._message(desired))
        self._make(_RULE, desired, self._rule(desired))
        return CreatedRegistration(id_)

    def update(
        self, desired: DesiredRegistration, found: FoundRegistration, secret: str | None
    ) -> None:
        """As `Registrar.update`."""
        self._change(_MESSAGE, found.remote_id, desired, self._message(desired))
        rule_id = self._id_of(_RULE, _developer_name(desired))
        if rule_id is None:
            self._make(_RULE, desired, self._rule(desired))
        else:
            self._change(_RULE, rule_id, desired, self._rule(desired))

    def delete(self, remote_id: str) -> None:
        """As `Registrar.delete`."""
        message = self._read(_MESSAGE, remote_id)
        if message is None:
            return
        rule_id = self._id_of(_RULE, str(message["FullName"]).partition(".")[2])
        if rule_id is not None:
            self._remove(_RULE, rule_id)
        self._remove(_MESSAGE, remote_id)

    def ping(self, remote_id: str) -> str | None:
        """Return None: Salesforce has no test event."""
        return None

    def _differences(
        self, desired: DesiredRegistration, message: Mapping[str, Any]
    ) -> Iterator[str]:
        yield from _different(self._message(desired), message)
        rule_id = self._id_of(_RULE, _developer_name(desired))
        rule = None if rule_id is None else self._read(_RULE, rule_id)
        if rule is None:
            yield "rule"
        else:
            yield from (
                f"rule.{name}" for name in _different(self._rule(desired), rule["Metadata"])
            )

    def _message(self, desired: DesiredRegistration) -> dict[str, Any]:
        return {
            "name": _developer_name(desired),
            "description": f"Registered by the integration {desired.integration}.",
            "endpointUrl": desired.url,
            "fields": list(self._it.fields),
            "includeSessionId": False,
            "integrationUser": self._it.user,
            "protected": False,
            "useDeadLetterQueue": False,
        }

    def _rule(self, desired: DesiredRegistration) -> dict[str, Any]:
        trigger, formula = _WHEN[self._it.when]
        return {
            "active": True,
            "description": f"Registered by the integration {desired.integration}.",
            "triggerType": trigger,
            "formula": formula,
            "actions": [{"name": _developer_name(desired), "type": "OutboundMessage"}],
        }

    def _id_of(self, kind: str, developer_name: str) -> str | None:
        owner = "EntityDefinitionId" if kind == _MESSAGE else "TableEnumOrId"
        query = (
            f"SELECT Id FROM {kind} WHERE Name = '{developer_name}' "  # noqa: S608 - checked names
            f"AND {owner} = '{self._it.object}'"
        )
        answer = self._api.call(
            "GET", "tooling/query", params={"q": query}, operation="find registration"
        ).json()
        records = field(answer, "records", self._where("find registration"))
        return str(records[0]["Id"]) if records else None

    def _read(self, kind: str, id_: str) -> dict[str, Any] | None:
        try:
            answer = self._api.call("GET", _path(kind, id_), operation="read registration").json()
        except UpstreamRejectedError as exc:
            if exc.status == 404:
                return None
            raise
        field(answer, "Metadata", self._where("read registration"))
        found: dict[str, Any] = answer
        return found

    def _make(self, kind: str, desired: DesiredRegistration, metadata: Mapping[str, Any]) -> str:
        answer = self._api.call(
            "POST",
            f"tooling/sobjects/{kind}",
            json={
                "FullName": f"{self._it.object}.{_developer_name(desired)}",
                "Metadata": metadata,
            },
            operation=f"register {kind}",
            record=desired.marker,
        ).json()
        return str(field(answer, "id", self._where(f"register {kind}")))

    def _change(
        self, kind: str, id_: str, desired: DesiredRegistration, metadata: Mapping[str, Any]
    ) -> None:
        self._api.call(
            "PATCH",
            _path(kind, id_),
            json={"Metadata": metadata},
            repeatable=True,
            operation=f"change {kind}",
            record=desired.marker,
        )

    def _remove(self, kind: str, id_: str) -> None:
        try:
            self._api.call("DELETE", _path(kind, id_), operation=f"remove {kind}", record=id_)
        except UpstreamRejectedError as exc:
            if exc.status != 404:
                raise

    def _where(self, operation: str) -> Where:
        return Where(system=self._api.system, operation=operation, record=self._it.object)


def _path(kind: str, id_: str) -> str:
    return f"tooling/sobjects/{kind}/{path_segment(id_)}"


def _developer_name(desired: DesiredRegistration) -> str:
    """Return a name of letters, digits and single underscores, as Salesforce requires."""
    return re.sub(r"[^a-z0-9]+", "_", f"{desired.integration}_{desired.name}").strip("_")[:80]


def _different(desired: Mapping[str, Any], is_there: Mapping[str, Any]) -> Iterator[str]:
    for name, value in desired.items():
        found = is_there.get(name)
        if name == "fields" and isinstance(found, list):
            found = sorted(found, key=value.index) if set(found) == set(value) else found
        if found != value:
            yield name
