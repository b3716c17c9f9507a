"""Salesforce outbound messages: SOAP with up to 100 records, and their acknowledgement."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from typing import Any

from lxml import etree

from tasks.core.intake.webhooks.request import (
    Acknowledgement,
    Proof,
    ReceivedEvent,
    WebhookRequest,
    as_payload,
    malformed,
    unauthentic,
)

_SOAP = "{http://schemas.xmlsoap.org/soap/envelope/}"
_OUTBOUND = "{http://soap.sforce.com/2005/09/outbound}"
_XSI = "{http://www.w3.org/2001/XMLSchema-instance}"
_SHORT_ID_LENGTH = 15

ACKNOWLEDGED = Acknowledgement(
    body=(
        b'<?xml version="1.0" encoding="UTF-8"?>'
        b'<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/">'
        b'<soapenv:Body><notificationsResponse xmlns="http://soap.sforce.com/2005/09/outbound">'
        b"<Ack>true</Ack></notificationsResponse></soapenv:Body></soapenv:Envelope>"
    ),
    content_type="text/xml; charset=utf-8",
)
"""The response Salesforce requires: one for all notifications of a message."""


class OrganizationAuthenticator:
    """Accepts messages of the allowed organisations.

    Salesforce does not sign, and an organisation's id is not secret. So an endpoint also needs an
    unguessable path, a client certificate at the proxy or an IP allow-list.
    """

    def __init__(self, scheme: str, organization_ids: Sequence[str]) -> None:
        self._scheme = scheme
        self._allowed = [id_[:_SHORT_ID_LENGTH].encode() for id_ in organization_ids]

    def __call__(self, request: WebhookRequest) -> Proof:
        """Raise `SignatureInvalidError` unless it is a message of an allowed organisation."""
        envelope = _parse(self._scheme, request.body)
        found = envelope.find(f"{_SOAP}Body/{_OUTBOUND}notifications")
        organization = "" if found is None else _text(found, "OrganizationId")
        if found is None or len(organization) not in (_SHORT_ID_LENGTH, _SHORT_ID_LENGTH + 3):
            raise unauthentic(self._scheme, "the body is no outbound message of Salesforce")
        # The first 15 of 18 characters are the id; the rest is a checksum.
        given = organization[:_SHORT_ID_LENGTH].encode()
        if not any(hmac.compare_digest(allowed, given) for allowed in self._allowed):
            raise unauthentic(self._scheme, "the organisation is not one of the allowed ones")
        return Proof(document=found)


def events(_request: WebhookRequest, proof: Proof) -> tuple[ReceivedEvent, ...]:
    """Return one event per notification, with the record as Salesforce sent it."""
    message = proof.document
    common = {
        "organization_id": _text(message, "OrganizationId"),
        "action_id": _text(message, "ActionId"),
        "enterprise_url": _text(message, "EnterpriseUrl"),
        "partner_url": _text(message, "PartnerUrl"),
    }
    return tuple(_event(found, common) for found in message.iterfind(f"{_OUTBOUND}Notification"))


def without_session(request: WebhookRequest, proof: Proof) -> bytes:
    """Return the body to store, without the session id, which grants its user's rights."""
    envelope = proof.document.getroottree()
    sessions = [found for found in envelope.iter("{*}SessionId") if "".join(found.itertext())]
    if not sessions:
        return request.body
    for element in sessions:
        element.clear(keep_tail=True)
    kept: bytes = etree.tostring(envelope, encoding="UTF-8")
    return kept


def _event(notification: Any, common: dict[str, str]) -> ReceivedEvent:
    notification_id = _text(notification, "Id")
    if not notification_id:
        raise malformed("salesforce", "a notification has no Id")
    record = notification.find(f"{_OUTBOUND}sObject")
    if record is None:
        record = etree.Element("sObject")
    object_type = record.get(f"{_XSI}type", "").rpartition(":")[2]
    fields = _fields(record)
    record_id = fields.get("Id")
    payload = {
        "notification_id": notification_id,
        **common,
        "object_type": object_type,
        "record": fields,
    }
    return ReceivedEvent(
        object_type,
        notification_id,
        # events of one record are handled in order
        ordering_key=record_id if isinstance(record_id, str) and record_id else None,
        payload=as_payload("salesforce", payload),
    )


def _fields(element: Any) -> dict[str, Any]:
    return {
        etree.QName(child).localname: _value(child)
        for child in element.iterchildren(tag=etree.Element)
    }


def _value(element: Any) -> Any:
    if element.get(f"{_XSI}nil") in ("true", "1"):
        return None
    return _fields(element) if len(element) else element.text or ""


def _text(element: Any, name: str) -> str:
    text: str = element.findtext(f"{_OUTBOUND}{name}", "")
    return text.strip()


def _parse(scheme: str, body: bytes) -> Any:
    # A document type can define entities and external references; no sender needs one.
    # The encoding is fixed: another one could hide it from this check.
    if b"<!DOCTYPE" in body or b"\0" in body:
        raise unauthentic(scheme, "the XML has a document type, or is not UTF-8")
    parser = etree.XMLParser(
        encoding="utf-8", resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False
    )
    try:
        return etree.fromstring(body, parser)
    except etree.XMLSyntaxError as exc:
        raise unauthentic(scheme, "the body is not XML") from exc
