"""Mails are read without trusting anything in them."""

from __future__ import annotations

import contextlib
import json
from email.message import EmailMessage

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.errors import BadPayloadError
from tasks.core.connectors.messages.received_mail import is_authenticated, read_mail, sender_of


def mail(**headers):
    found = EmailMessage()
    found["From"] = "Ann <Ann@Partner.example>"
    found["Subject"] = "Bestellung für März"
    for name, value in headers.items():
        found[name.replace("_", "-")] = value
    found.set_content("Grüße\n")
    return found


def test_attachments_come_as_files_with_harmless_names():
    """A file name cannot leave its folder, and a nameless attachment gets a name."""
    message = mail()
    message.add_attachment(b"a,b", maintype="text", subtype="csv", filename="../../etc/päss.csv")
    message.add_attachment(b"x", maintype="application", subtype="octet-stream")
    message.add_attachment(mail())
    found = read_mail(message.as_bytes())
    assert [each.name for each in found.attachments] == [
        "päss.csv",
        "attachment-2",
        "attachment-3.eml",
    ]
    assert found.attachments[0].content == b"a,b"
    assert (found.sender, found.subject) == ("ann@partner.example", "Bestellung für März")
    assert json.loads(found.as_json())["attachments"][0]["size"] == 3


@pytest.mark.parametrize(
    "raw",
    [
        b"Subject: nobody\r\n\r\n",
        b"From: a@x.example, b@y.example\r\n\r\n",
        b"From: a@x.example\r\nFrom: b@y.example\r\n\r\n",
        b"From: just a name\r\n\r\n",
    ],
)
def test_a_mail_without_one_sender_has_none(raw):
    """A mail that names no sender, or several, passes no list of allowed ones."""
    assert sender_of(raw) == ""


def test_only_our_own_servers_verdict_counts():
    """DMARC results that came with the mail, or in a comment, prove nothing."""
    ours = "mx.own.example; spf=fail; dmarc=pass (p=reject) header.from=partner.example"
    assert is_authenticated(mail(Authentication_Results=ours).as_bytes(), "mx.own.example")
    forged = b"Authentication-Results: mx.own.example; dmarc=fail\r\n"
    forged += mail(Authentication_Results=ours).as_bytes()
    assert not is_authenticated(forged, "mx.own.example")
    comment = "mx.own.example; dmarc=fail (dmarc=pass)"
    assert not is_authenticated(mail(Authentication_Results=comment).as_bytes(), "mx.own.example")
    assert not is_authenticated(mail().as_bytes(), "mx.own.example")


def test_too_many_attachments_are_refused():
    """A mail with hundreds of attachments is dead-lettered, not unpacked."""
    message = mail()
    for _ in range(101):
        message.add_attachment(b"", maintype="text", subtype="csv", filename="a.csv")
    with pytest.raises(BadPayloadError):
        read_mail(message.as_bytes())


def test_a_deeply_nested_mail_is_read_or_refused():
    """Nesting without end makes no parser give up the process."""
    raw = b"From: a@x.example\r\n" + b"".join(
        b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n)
        for n in range(2000)
    )
    with pytest.raises(BadPayloadError):
        read_mail(raw)


@given(st.binary(max_size=2000))
def test_any_bytes_are_a_mail_or_a_bad_payload(raw):
    """No input makes the reader raise anything else."""
    with contextlib.suppress(BadPayloadError):
        read_mail(b"From: a@x.example\r\n" + raw).as_json()
