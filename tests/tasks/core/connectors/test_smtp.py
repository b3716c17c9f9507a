"""E-mail against a real SMTP server on the loopback."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.errors import (
    MisconfiguredError,
    UnreachableError,
    UpstreamBusyError,
    UpstreamRejectedError,
)
from blocks.mail_server import MailServer
from sandbox.systems import mail_server
from tasks.core.connectors.smtp import Attachment, Mail, _compose, send_mail

NOW = datetime(2026, 7, 23, 17, tzinfo=UTC)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("mail")


@pytest.fixture
def server(data_dir):
    with mail_server.start(data_dir) as running:
        yield running


def block(server, **changes) -> MailServer:
    return server.block(**{"timeout_s": 5, **changes})


def send(at: MailServer, mail: Mail, **changes):
    return send_mail(
        at.get_client,
        mail,
        sender=at.sender,
        system=at.system,
        sender_name=at.sender_name,
        now=lambda: NOW,
        **changes,
    )


def plain(**changes) -> Mail:
    return Mail(**{"to": ("boss@example.org",), "subject": "Sales", "text": "Hello", **changes})


@pytest.fixture
def attachment(tmp_path):
    path = tmp_path / "r.csv"
    path.write_bytes(b"a;b\r\n" * 10_000)
    return Attachment(path, "Umsätze Woche 30.csv", "text/csv")


def test_a_report_arrives_with_its_file(server, attachment):
    """Subject, text, sender and attachment come through in any script, over STARTTLS with login."""
    to = ("boss@example.org", "Ceo@Example.org")
    mail = plain(to=to, subject="Umsätze – 売上", text="Grüße\n", attachment=attachment, key="k1")
    sent = send(block(server), mail)
    [received] = server.messages
    message = received.message
    assert received.recipients == to
    assert received.sender == "reports@example.org"
    assert message["From"] == "Reports <reports@example.org>"
    assert message["Subject"] == "Umsätze – 売上"
    assert message["Date"].datetime == NOW
    assert message["Message-ID"] == "<k1@example.org>" == sent.message_id
    assert message["Auto-Submitted"] == "auto-generated"
    assert message.get_body().get_content().strip() == "Grüße"
    [part] = message.iter_attachments()
    assert part.get_filename() == attachment.name
    assert part.get_content_type() == "text/csv"
    assert part.get_payload(decode=True) == attachment.path.read_bytes()
    assert sent.attached


def test_a_file_too_large_becomes_a_link(server, attachment):
    """Above the block's limit the text names the file and where it is, and nothing is attached."""
    link = "https://files.example.org/r.csv"
    mail = plain(attachment=attachment, link=link)
    sent = send(block(server), mail, max_message_bytes=60_000)
    assert not sent.attached
    message = server.messages[0].message
    assert list(message.iter_attachments()) == []
    assert f"{attachment.name}: {link}" in message.get_body().get_content()


def test_the_servers_own_limit_counts_too(data_dir, attachment):
    """What the server announces as its limit is kept to, so that it need not refuse."""
    with mail_server.start(data_dir, max_message_bytes=60_000) as server:
        assert not send(block(server), plain(attachment=attachment, link="x")).attached
        with pytest.raises(MisconfiguredError, match="too large for mail of at most 60,000"):
            send(block(server), plain(attachment=attachment))
        assert len(server.messages) == 1


@pytest.mark.parametrize(
    ("answer", "error"),
    [("550 no such user", UpstreamRejectedError), ("450 greylisted", UpstreamBusyError)],
)
def test_nobody_gets_it_unless_everybody_can(server, answer, error):
    """One refused recipient stops the mail before any content: a retry reaches all once."""
    server.faults.recipients["b@example.org"] = answer
    with pytest.raises(error, match=r"recipients \(b@example.org\), so nobody got it"):
        send(block(server), plain(to=("a@example.org", "b@example.org")))
    assert server.messages == []


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ("451 local error", UpstreamBusyError),
        ("452 too many", UpstreamBusyError),
        ("554 spam", UpstreamRejectedError),
    ],
)
def test_a_refused_message_says_whether_to_try_again(server, answer, error):
    """4xx is tried again, 5xx is not."""
    server.faults.on_data = answer
    with pytest.raises(error, match=rf"{answer[:3]}"):
        send(block(server), plain())


@pytest.mark.parametrize("cut", ["before", "after"])
def test_a_cut_connection_is_tried_again_under_the_same_id(server, cut):
    """Whether or not the first copy arrived, the second has its Message-ID."""
    server.faults.cut = cut
    with pytest.raises(UnreachableError):
        send(block(server), plain(key="k7"))
    server.faults.cut = None
    send(block(server), plain(key="k7"))
    assert {received.message["Message-ID"] for received in server.messages} == {"<k7@example.org>"}
    assert len(server.messages) == (2 if cut == "after" else 1)


def test_implicit_tls_and_no_encryption_work_too(data_dir):
    """Port 465's way, and a relay on the same machine that wants nothing."""
    with mail_server.start(data_dir, security="tls") as server:
        send(block(server, security="tls"), plain())
        assert len(server.messages) == 1
    with mail_server.start(data_dir, security="none") as server:
        send(block(server, security="none", username=None, password=None), plain())
        assert len(server.messages) == 1


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"password": "wrong"}, "refuses the login"),
        ({"ca_file": None}, "certificate is not trusted"),
        ({"security": "tls"}, "does not speak TLS"),
    ],
)
def test_a_wrong_block_says_what_to_mend(server, changes, says):
    """Login, certificate and port errors are ours, and no secret is in them."""
    with pytest.raises(MisconfiguredError, match=says) as caught:
        send(block(server, **changes), plain())
    assert server.password not in str(caught.value)
    assert server.messages == []


def test_a_server_that_cannot_encrypt_gets_no_password(data_dir):
    """If STARTTLS is missing nothing is sent, whoever removed it from the greeting."""
    with (
        mail_server.start(data_dir, security="none") as server,
        pytest.raises(MisconfiguredError, match="STARTTLS"),
    ):
        send(block(server), plain())


def test_a_dead_server_is_unreachable(data_dir):
    """Nobody listens: that may pass."""
    with mail_server.start(data_dir) as server:
        at = block(server)
    with pytest.raises(UnreachableError):
        send(at, plain())


def test_international_addresses_need_a_server_that_takes_them(server):
    """A recipient in another script is sent with SMTPUTF8."""
    send(block(server), plain(to=("θσερ@example.org",)))
    assert server.messages[0].recipients == ("θσερ@example.org",)


@pytest.mark.parametrize(
    "address",
    ["", "boss", "boss@", "@example.org", "a@b.c\r\nBcc: x@y.z", "a@b.c, d@e.f", "A <a@b.c>"],
)
def test_an_address_that_is_none_is_refused(server, address):
    """Nothing is sent to it, and nothing after a line break becomes a header."""
    with pytest.raises(MisconfiguredError, match=r"write it as name@example\.org"):
        send(block(server), plain(to=(address,)))
    assert server.messages == []


@given(subject=st.text(), name=st.text(max_size=30))
def test_no_text_makes_a_header(subject, name):
    """Whatever stands in subject and names, the headers are the ones we wrote."""
    mail = plain(subject=subject)
    try:
        message = _compose(mail, "reports@example.org", name, False, NOW, "smtp://test")
        raw = message.as_bytes()
    except UnicodeEncodeError:  # lone surrogates cannot be written at all
        return
    lines = raw.split(b"\r\n\r\n")[0].split(b"\r\n")
    names = {line.partition(b":")[0] for line in lines if not line[:1].isspace()}
    assert names == {
        b"From", b"To", b"Subject", b"Date", b"Auto-Submitted", b"Content-Type",
        b"Content-Transfer-Encoding", b"MIME-Version",
    }  # fmt: skip
