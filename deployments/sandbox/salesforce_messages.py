"""Salesforce's outbound messages: made by the Tooling API, sent as SOAP until acknowledged.

Source: developer.salesforce.com, Tooling API: WorkflowOutboundMessage, WorkflowRule; SOAP API:
outbound messaging.
"""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from xml.sax.saxutils import escape

import httpx
from lxml import etree

from deployments.sandbox.salesforce_records import Change, QueryError, record_id

MAX_NOTIFICATIONS = 100
_TIMEOUT_S = 10
_ACK = ".//{http://soap.sforce.com/2005/09/outbound}Ack"
_KINDS = {"WorkflowOutboundMessage": "04k", "WorkflowRule": "01Q"}
_OWNERS = {"WorkflowOutboundMessage": "EntityDefinitionId", "WorkflowRule": "TableEnumOrId"}


class ToolingError(Exception):
    """What the API refuses, with its error code."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


@dataclass
class MessageFaults:
    """What goes wrong until it is set back.

    Attributes:
        forget_acks: So many acknowledgements get lost on their way, so the message comes again.
    """

    forget_acks: int = 0


@dataclass
class Sent:
    """One attempt to send a message.

    Attributes:
        action_id: Of the outbound message.
        notification_ids: What was in it.
        status: Of the answer; None if there was none.
        acknowledged: Whether it said `Ack true`.
    """

    action_id: str
    notification_ids: list[str]
    status: int | None
    acknowledged: bool


@dataclass(frozen=True, slots=True)
class _Notification:
    id: str
    object_type: str
    record_id: str


@dataclass
class _Metadata:
    kind: str
    full_name: str
    metadata: dict[str, Any]

    @property
    def object_type(self) -> str:
        return self.full_name.partition(".")[0]

    @property
    def name(self) -> str:
        return self.full_name.partition(".")[2]


@dataclass
class SalesforceMessages:
    """The outbound messages of one organisation, and the rules that send them.

    Attributes:
        organization_id: Of 18 characters.
        read: Gives fields of a record as it is when a message is sent.
        first_wait_s: Until what was not acknowledged is sent again; doubled each time.
        sent: Every attempt, oldest first.
        faults: What goes wrong.
    """

    organization_id: str
    read: Callable[[str, str, Sequence[str]], dict[str, Any]]
    first_wait_s: float = 0.2
    gather_s: float = 0.05
    sent: list[Sent] = field(default_factory=list)
    faults: MessageFaults = field(default_factory=MessageFaults)
    url: str = ""

    def __post_init__(self) -> None:
        """Start the courier."""
        self._objects: dict[str, _Metadata] = {}
        self._lock = threading.RLock()
        self._numbers = itertools.count(1)
        self._waiting: queue.Queue[tuple[str, _Notification] | None] = queue.Queue()
        self._stopping = threading.Event()
        self._courier = threading.Thread(target=self._carry, name="salesforce-courier", daemon=True)
        self._courier.start()

    def happened(self, change: Change) -> None:
        """Note a notification for every active rule that the change meets."""
        with self._lock:
            for rule in self._of_kind("WorkflowRule"):
                if rule.object_type == change.object_type and _is_met(rule.metadata, change):
                    for action in rule.metadata.get("actions", []):
                        message_id = self._id_of("WorkflowOutboundMessage", rule, action["name"])
                        if message_id is not None:
                            note = _Notification(
                                record_id("04l", next(self._numbers)), change.object_type, change.id
                            )
                            self._waiting.put((message_id, note))

    def create(self, kind: str, document: dict[str, Any]) -> str:
        """Make an outbound message or a rule.

        Raises:
            ToolingError: There is one of that name, or it does not fit.
        """
        full_name, metadata = str(document.get("FullName", "")), document.get("Metadata")
        if "." not in full_name or not isinstance(metadata, dict):
            raise ToolingError(400, "REQUIRED_FIELD_MISSING", "FullName, Metadata")
        made = _Metadata(kind, full_name, metadata)
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
            changed = _Metadata(kind, found.full_name, dict(document.get("Metadata") or {}))
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

    def reset(self) -> None:
        """Forget everything, and what waits to be sent."""
        with self._lock:
            self._objects.clear()
            self.sent.clear()
            self.faults = MessageFaults()
            while not self._waiting.empty():
                self._waiting.get_nowait()

    def close(self) -> None:
        """Send nothing any more."""
        self._stopping.set()
        self._waiting.put(None)
        self._courier.join()

    def _carry(self) -> None:
        unsent: list[tuple[float, int, str, list[_Notification]]] = []
        with httpx.Client(timeout=_TIMEOUT_S) as http:
            while not self._stopping.is_set():
                now = time.monotonic()
                due = [each for each in unsent if each[0] <= now]
                unsent = [each for each in unsent if each[0] > now]
                due += [(now, 0, *message) for message in self._gathered(bool(unsent or due))]
                for _, attempts, action_id, notes in due:
                    if not self._deliver(http, action_id, notes):
                        wait_s = self.first_wait_s * 2 ** min(attempts, 10)
                        unsent.append((time.monotonic() + wait_s, attempts + 1, action_id, notes))

    def _gathered(self, is_busy: bool) -> list[tuple[str, list[_Notification]]]:
        """What came together within a moment, up to a hundred notifications a message."""
        try:
            first = self._waiting.get(timeout=0.02 if is_busy else 0.5)
        except queue.Empty:
            return []
        gathered: dict[str, list[_Notification]] = {}
        time.sleep(self.gather_s)
        while first is not None:
            gathered.setdefault(first[0], []).append(first[1])
            try:
                first = self._waiting.get_nowait()
            except queue.Empty:
                break
        return [
            (action_id, notes[start : start + MAX_NOTIFICATIONS])
            for action_id, notes in gathered.items()
            for start in range(0, len(notes), MAX_NOTIFICATIONS)
        ]

    def _deliver(self, http: httpx.Client, action_id: str, notes: list[_Notification]) -> bool:
        with self._lock:
            message = self._objects.get(action_id)
        if message is None:
            return True  # it was removed meanwhile, and what waited with it
        status, acknowledged = None, False
        try:
            answer = http.post(
                message.metadata["endpointUrl"],
                content=self._envelope(action_id, message, notes),
                headers={"Content-Type": "text/xml; charset=utf-8", "SOAPAction": '""'},
            )
            status = answer.status_code
            acknowledged = status == 200 and _is_ack(answer.content)
        except httpx.HTTPError:
            pass
        if acknowledged and self.faults.forget_acks > 0:
            self.faults.forget_acks -= 1
            acknowledged = False
        self.sent.append(Sent(action_id, [note.id for note in notes], status, acknowledged))
        return acknowledged

    def _envelope(self, action_id: str, message: _Metadata, notes: list[_Notification]) -> bytes:
        told = "".join(self._notification(message, note) for note in notes)
        return (
            '<?xml version="1.0" encoding="UTF-8"?>'
            '<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" '
            'xmlns:xsd="http://www.w3.org/2001/XMLSchema" '
            'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><soapenv:Body>'
            '<notifications xmlns="http://soap.sforce.com/2005/09/outbound">'
            f"<OrganizationId>{self.organization_id}</OrganizationId>"
            f'<ActionId>{action_id}</ActionId><SessionId xsi:nil="true"/>'
            f"<EnterpriseUrl>{self.url}/services/Soap/c/62.0</EnterpriseUrl>"
            f"<PartnerUrl>{self.url}/services/Soap/u/62.0</PartnerUrl>"
            f"{told}</notifications></soapenv:Body></soapenv:Envelope>"
        ).encode()

    def _notification(self, message: _Metadata, note: _Notification) -> str:
        names = message.metadata.get("fields") or ["Id"]
        values = {**self.read(note.object_type, note.record_id, names), "Id": note.record_id}
        fields = "".join(
            f"<sf:{name}>{escape(str(values[name]))}</sf:{name}>"
            for name in names
            if values.get(name) is not None
        )
        return (
            f"<Notification><Id>{note.id}</Id>"
            f'<sObject xsi:type="sf:{note.object_type}" '
            'xmlns:sf="urn:sobject.enterprise.soap.sforce.com">'
            f"{fields}</sObject></Notification>"
        )

    def _of_kind(self, kind: str) -> list[_Metadata]:
        return [each for each in self._objects.values() if each.kind == kind]

    def _existing(self, kind: str, id_: str) -> _Metadata:
        found = self._objects.get(id_)
        if found is None or found.kind != kind:
            raise ToolingError(404, "NOT_FOUND", "The requested resource does not exist")
        return found

    def _id_of(self, kind: str, rule: _Metadata, name: str) -> str | None:
        wanted = f"{rule.object_type}.{name}"
        return next(
            (
                id_
                for id_, each in self._objects.items()
                if each.kind == kind and each.full_name == wanted
            ),
            None,
        )

    def _check(self, made: _Metadata) -> None:
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


def _is_ack(body: bytes) -> bool:
    try:
        return etree.fromstring(body).findtext(_ACK, "").strip() == "true"
    except etree.XMLSyntaxError:
        return False
