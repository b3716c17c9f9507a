"""Salesforce's outbound messages: sent as SOAP, again and again until they are acknowledged.

Source: developer.salesforce.com, SOAP API: outbound messaging.
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

from sandbox.systems.salesforce_records import Change, record_id
from sandbox.systems.salesforce_tooling import Metadata, ToolingObjects

MAX_NOTIFICATIONS = 100
_TIMEOUT_S = 10
_ACK = ".//{http://soap.sforce.com/2005/09/outbound}Ack"


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
class SalesforceMessages:
    """Sends the outbound messages of one organisation.

    Attributes:
        organization_id: Of 18 characters.
        tooling: Which messages are sent for what.
        read: Gives fields of a record as it is when a message is sent.
        first_wait_s: Until what was not acknowledged is sent again; doubled each time.
        gather_s: How long notifications are gathered for one message.
        sent: Every attempt, oldest first.
        faults: What goes wrong.
    """

    organization_id: str
    tooling: ToolingObjects
    read: Callable[[str, str, Sequence[str]], dict[str, Any]]
    first_wait_s: float = 0.2
    gather_s: float = 0.05
    sent: list[Sent] = field(default_factory=list)
    faults: MessageFaults = field(default_factory=MessageFaults)
    url: str = ""

    def __post_init__(self) -> None:
        """Start the courier."""
        self._numbers = itertools.count(1)
        self._waiting: queue.Queue[tuple[str, _Notification] | None] = queue.Queue()
        self._stopping = threading.Event()
        self._courier = threading.Thread(target=self._carry, name="salesforce-courier", daemon=True)
        self._courier.start()

    def happened(self, change: Change) -> None:
        """Note a notification for every outbound message that is sent for the change."""
        for action_id in self.tooling.sent_for(change):
            id_ = record_id("04l", next(self._numbers))
            self._waiting.put((action_id, _Notification(id_, change.object_type, change.id)))

    def reset(self) -> None:
        """Forget what was sent and what waits for it, and every fault."""
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
        message = self.tooling.message(action_id)
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

    def _envelope(self, action_id: str, message: Metadata, notes: list[_Notification]) -> bytes:
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

    def _notification(self, message: Metadata, note: _Notification) -> str:
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


def _is_ack(body: bytes) -> bool:
    try:
        return etree.fromstring(body).findtext(_ACK, "").strip() == "true"
    except etree.XMLSyntaxError:
        return False
