"""Outbound messages become one event a record; strangers and session ids stay out."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from blocks.errors import BadPayloadError, SignatureInvalidError
from tasks.core.intake.webhooks.request import WebhookRequest
from tasks.core.intake.webhooks.verifier import VerifiedRequest, Verifier

ORGANIZATION = "00D5g000004WxyzEAC"
NOTIFICATION = """
   <Notification>
    <Id>04l5g00000{n:05d}AAA</Id>
    <sObject xsi:type="sf:Opportunity" xmlns:sf="urn:sobject.enterprise.soap.sforce.com">
     <sf:Id>0065g00000{n:05d}AAB</sf:Id>
     <sf:Name>Räder &amp; Söhne</sf:Name>
     <sf:Amount xsi:nil="true"/>
    </sObject>
   </Notification>"""


def message(notifications: str = NOTIFICATION.format(n=1), session: str = "") -> bytes:
    session_id = f"<SessionId>{session}</SessionId>" if session else '<SessionId xsi:nil="true"/>'
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"
  xmlns:xsd="http://www.w3.org/2001/XMLSchema"
  xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
 <soapenv:Body>
  <notifications xmlns="http://soap.sforce.com/2005/09/outbound">
   <OrganizationId>{ORGANIZATION}</OrganizationId>
   <ActionId>04k5g000000XyzAAE</ActionId>
   {session_id}
   <EnterpriseUrl>https://shop.my.salesforce.com/services/Soap/c/61.0</EnterpriseUrl>
   <PartnerUrl>https://shop.my.salesforce.com/services/Soap/u/61.0</PartnerUrl>{notifications}
  </notifications>
 </soapenv:Body>
</soapenv:Envelope>""".encode()


def verify(body: bytes, allowed: str = ORGANIZATION) -> VerifiedRequest:
    verifier = Verifier("salesforce", secrets=[], options={"organization_ids": [allowed]})
    return verifier.verify(
        WebhookRequest("POST", "https://h.example/", {}, body, datetime.now(UTC))
    )


@pytest.mark.parametrize("allowed", [ORGANIZATION, ORGANIZATION[:15]])
@pytest.mark.parametrize("sent", [ORGANIZATION, ORGANIZATION[:15]])
def test_accepts_an_allowed_organisation_in_either_length(allowed, sent):
    """15 and 18 characters name the same organisation."""
    verify(message().replace(ORGANIZATION.encode(), sent.encode()), allowed)


@pytest.mark.parametrize(
    "sent", ["00D5G000004WXYZ", "00D5g000004Wxya", "", "00D", ORGANIZATION + "A"]
)
def test_refuses_another_organisation(sent):
    """Ids differ by case too; a shortened one is none."""
    with pytest.raises(SignatureInvalidError):
        verify(message().replace(ORGANIZATION.encode(), sent.encode()))


def test_a_notification_is_one_event_with_its_record():
    """Flows receive the record's fields by name, nil as null, and who sent it."""
    (event,) = verify(message()).read_events()
    assert (event.event_type, event.dedup_key) == ("Opportunity", "04l5g0000000001AAA")
    assert json.loads(event.payload) == {
        "notification_id": "04l5g0000000001AAA",
        "organization_id": ORGANIZATION,
        "action_id": "04k5g000000XyzAAE",
        "enterprise_url": "https://shop.my.salesforce.com/services/Soap/c/61.0",
        "partner_url": "https://shop.my.salesforce.com/services/Soap/u/61.0",
        "object_type": "Opportunity",
        "record": {"Id": "0065g0000000001AAB", "Name": "Räder & Söhne", "Amount": None},
    }


def test_a_hundred_notifications_are_a_hundred_events():
    """A full message is split, and acknowledged once for all."""
    verified = verify(message("".join(NOTIFICATION.format(n=n) for n in range(100))))
    assert len({event.dedup_key for event in verified.read_events()}) == 100
    assert b"<Ack>true</Ack>" in verified.acknowledgement.body


def test_a_record_deleted_meanwhile_is_an_empty_record():
    """Salesforce sends a notification without data when the record is gone."""
    (event,) = verify(message("<Notification><Id>04l1</Id><sObject/></Notification>")).read_events()
    assert json.loads(event.payload)["record"] == {}


def test_a_message_without_notifications_has_no_events():
    """Nothing is stored, and the message is acknowledged."""
    assert verify(message("")).read_events() == ()


def test_a_notification_without_id_is_malformed():
    """What cannot be told from a repetition is not taken."""
    with pytest.raises(BadPayloadError):
        verify(message("<Notification><sObject/></Notification>")).read_events()


def test_the_session_id_is_kept_nowhere():
    """A session id is gone from the body that is stored, and stands in no event."""
    verified = verify(message(session="00D!AQ<!-- -->secret"))
    assert b"AQ" not in verified.body
    assert b"secret" not in verified.body
    assert b"04l5g0000000001AAA" in verified.body
    assert all(b"secret" not in event.payload for event in verified.read_events())


def test_without_session_id_the_body_is_kept_as_it_came():
    """Nothing is rewritten when there is nothing to hide."""
    assert verify(message()).body == message()


@pytest.mark.parametrize(
    "body",
    [
        message().replace(
            b"<soapenv:Envelope", b"<!DOCTYPE x [<!ENTITY e 'x'>]><soapenv:Envelope", 1
        ),
        message().decode().replace("UTF-8", "UTF-16").encode("utf-16"),
        b"<?xml version='1.0' encoding='nosuch'?><a/>",
        b"<a" * 5000,
        b"",
        b"\x00",
        message().replace(b"outbound", b"inbound"),
    ],
    ids=["doctype", "utf-16", "encoding", "depth", "empty", "nul", "namespace"],
)
def test_refuses_tricks_of_xml(body):
    """Document types, hidden encodings and broken XML are refusals and no crash."""
    with pytest.raises(SignatureInvalidError):
        verify(body)
