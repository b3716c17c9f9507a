"""What Salesforce's Tooling API keeps of outbound messages, and of the rules that send them.

Source: developer.salesforce.com, Tooling API: WorkflowOutboundMessage, WorkflowRule.
"""

from __future__ import annotations

import itertools
import threading
from dataclasses import dataclass
from typing import Any

from sandbox.systems.salesforce_records import Change, QueryError, record_id

_KINDS = {"WorkflowOutboundMessage": "04k", "WorkflowRule": "01Q"}
_OWNERS = {"WorkflowOutboundMessage": "EntityDefinitionId", "WorkflowRule": "TableEnumOrId"}


class ToolingError(Exception):
    """What the API refuses, with its error code."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


@dataclass
class Metadata:
    """An outbound message or a workflow rule.

    Attributes:
        kind: Which of the two.
        full_name: Object type and name, e.g. "Contact.announce".
        metadata: As it was given.
    """

    kind: str
    full_name: str
    metadata: dict[str, Any]

    @property
    def object_type(self) -> str:
        """What it is about."""
        return self.full_name.partition(".")[0]

    @property
    def name(self) -> str:
        """Its developer name."""
        return self.full_name.partition(".")[2]


class ToolingObjects:
    """The outbound messages and workflow rules of one organisation; safe for threads."""

    def __init__(self) -> None:
        self._objects: dict[str, Metadata] = {}
        self._lock = threading.RLock()
        self._numbers = itertools.count(1)

    def create(self, kind: str, document: dict[str, Any]) -> str:
        """Make an outbound message or a rule.

        Raises:
            ToolingError: There is one of that name, or it does not fit.
        """
        full_name, metadata = str(document.get("FullName", "")), document.get("Metadata")
        if "." not in full_name or not isinstance(metadata, dict):
            raise ToolingError(400, "REQUIRED_FIELD_MISSING", "FullName, Metadata")
        made = Metadata(kind, full_name, metadata)
        with self._lock:
            if any(each.full_name == full_name for each in self._of_kind(kind)):
                raise ToolingError(400, "DUPLICATE_DEVELOPER_NAME", f"{full_name} is taken")
            self._check(made)
            id_ = record_id(_KINDS[kind], next(self._numbers))
            self._objects[id_] = made
        return id_

    def show(self, kind: str, id_: str) -> dict[str, Any]:
        """One of them, whole.

        Raises:
            ToolingError: There is none.
        """
        with self._lock:
            found = self._existing(kind, id_)
            return {
                "attributes": {"type": kind},
                "Id": id_,
                "FullName": found.full_name,
                "Name": found.name,
                "Metadata": dict(found.metadata),
            }

    def change(self, kind: str, id_: str, document: dict[str, Any]) -> None:
        """Replace one's metadata.

        Raises:
            ToolingError: There is none, or it does not fit.
        """
        with self._lock:
            found = self._existing(kind, id_)
            changed = Metadata(kind, found.full_name, dict(document.get("Metadata") or {}))
            self._check(changed)
            self._objects[id_] = changed

    def remove(self, kind: str, id_: str) -> None:
        """Remove one.

        Raises:
            ToolingError: There is none, or a rule still sends it.
        """
        with self._lock:
            found = self._existing(kind, id_)
            if kind == "WorkflowOutboundMessage":
                for rule in self._of_kind("WorkflowRule"):
                    actions = [action["name"] for action in rule.metadata.get("actions", [])]
                    if rule.object_type == found.object_type and found.name in actions:
                        raise ToolingError(400, "DEPENDENCY_EXISTS", "a workflow rule uses it")
            del self._objects[id_]

    def query(self, conditions: dict[str, str], kind: str) -> list[dict[str, Any]]:
        """Ids of those of a name and an object type.

        Raises:
            QueryError: There is no such kind.
        """
        if kind not in _KINDS:
            raise QueryError(f"sObject type '{kind}' is not supported")
        with self._lock:
            return [
                {"attributes": {"type": kind}, "Id": id_}
                for id_, each in self._objects.items()
                if each.kind == kind
                and conditions.get("Name", each.name) == each.name
                and conditions.get(_OWNERS[kind], each.object_type) == each.object_type
            ]

    def registered(self) -> dict[str, str]:
        """Full name of each outbound message that an active rule sends, to the URL it calls."""
        with self._lock:
            ruled = {
                f"{rule.object_type}.{action['name']}"
                for rule in self._of_kind("WorkflowRule")
                if rule.metadata.get("active")
                for action in rule.metadata.get("actions", [])
            }
            messages = self._of_kind("WorkflowOutboundMessage")
            return {
                each.full_name: each.metadata["endpointUrl"]
                for each in messages
                if each.full_name in ruled
            }

    def objects(self) -> list[str]:
        """Kind and full name of everything there is, also of what is only half made."""
        with self._lock:
            return sorted(f"{each.kind} {each.full_name}" for each in self._objects.values())

    def sent_for(self, change: Change) -> list[str]:
        """Ids of the outbound messages that active rules send for a change."""
        with self._lock:
            found = [
                self._id_of("WorkflowOutboundMessage", rule, action["name"])
                for rule in self._of_kind("WorkflowRule")
                if rule.object_type == change.object_type and _is_met(rule.metadata, change)
                for action in rule.metadata.get("actions", [])
            ]
        return [id_ for id_ in found if id_ is not None]

    def message(self, id_: str) -> Metadata | None:
        """An outbound message, if it is there still."""
        with self._lock:
            return self._objects.get(id_)

    def reset(self) -> None:
        """Forget everything."""
        with self._lock:
            self._objects.clear()

    def _of_kind(self, kind: str) -> list[Metadata]:
        return [each for each in self._objects.values() if each.kind == kind]

    def _existing(self, kind: str, id_: str) -> Metadata:
        found = self._objects.get(id_)
        if found is None or found.kind != kind:
            raise ToolingError(404, "NOT_FOUND", "The requested resource does not exist")
        return found

    def _id_of(self, kind: str, rule: Metadata, name: str) -> str | None:
        wanted = f"{rule.object_type}.{name}"
        return next(
            (
                id_
                for id_, each in self._objects.items()
                if each.kind == kind and each.full_name == wanted
            ),
            None,
        )

    def _check(self, made: Metadata) -> None:
        if made.kind == "WorkflowOutboundMessage":
            if not str(made.metadata.get("endpointUrl", "")).startswith(("http://", "https://")):
                raise ToolingError(400, "FIELD_INTEGRITY_EXCEPTION", "endpointUrl")
            return
        for action in made.metadata.get("actions", []):
            if self._id_of("WorkflowOutboundMessage", made, action["name"]) is None:
                raise ToolingError(400, "FIELD_INTEGRITY_EXCEPTION", f"action {action['name']}")


def _is_met(rule: dict[str, Any], change: Change) -> bool:
    if not rule.get("active"):
        return False
    if rule.get("triggerType") == "onCreateOnly":
        return change.is_new
    return not (change.is_new and rule.get("formula") == "NOT(ISNEW())")
