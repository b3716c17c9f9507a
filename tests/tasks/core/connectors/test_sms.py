"""Text messages against a stand-in of Twilio's API, which Twilio's own client can use too."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twilio.base.exceptions import TwilioRestException
from twilio.http.http_client import TwilioHttpClient
from twilio.rest import Client

from blocks.errors import (
    MisconfiguredError,
    UnreachableError,
    UpstreamBusyError,
    UpstreamFailedError,
    UpstreamRejectedError,
)
from sandbox.systems import twilio_api
from tasks.core.connectors.sms import TextMessage, segments, send_sms, sms_text

MESSAGE = TextMessage("+4915112345678", "Sales: 1,234.50 https://x.example/1")
HOUR_AGO = datetime.now(UTC) - timedelta(hours=1)


@pytest.fixture(scope="module")
def running():
    with twilio_api.start() as api:
        yield api


@pytest.fixture
def twilio(running):
    running.reset()
    return running


def send(twilio, message: TextMessage = MESSAGE, block=None, **options):
    account = block or twilio.block()
    with account.get_client() as client:
        return send_sms(client, message, sender=account.sender, system=account.system, **options)


def test_a_message_is_handed_over(twilio):
    """Number, text and sender arrive, and the message's id comes back."""
    sent = send(twilio)
    [kept] = twilio.messages
    assert (kept["to"], kept["body"], kept["from"]) == (MESSAGE.to, MESSAGE.text, "+15005550006")
    assert (sent.sid, sent.status, sent.found) == (kept["sid"], "queued", False)


def test_a_messaging_service_can_send(twilio):
    """A sender that begins MG goes where Twilio expects it."""
    service = f"MG{'0' * 32}"
    send(twilio, block=twilio.block(sender=service))
    assert twilio.messages[0]["messaging_service_sid"] == service
    assert twilio.messages[0]["from"] is None


def test_a_lost_answer_is_looked_up(twilio):
    """The connection was cut after Twilio took the message: it is found and not sent again."""
    twilio.faults.lose_answer = "taken"
    sent = send(twilio)
    assert sent.found
    assert [kept["sid"] for kept in twilio.messages] == [sent.sid]


def test_a_lost_message_may_be_sent_again(twilio):
    """The connection was cut and nothing was taken: the error is one that is tried again."""
    twilio.faults.lose_answer = "not taken"
    with pytest.raises(UnreachableError):
        send(twilio)
    twilio.faults.lose_answer = None
    assert not send(twilio, look_since_at=HOUR_AGO).found
    assert len(twilio.messages) == 1


def test_a_second_attempt_looks_first(twilio):
    """A run that died after sending finds its message, on whatever page, unless it failed."""
    first = send(twilio)
    for number in range(250):
        twilio.messages.append({**twilio.messages[0], "sid": f"SM{number}", "body": "other"})
    assert send(twilio, look_since_at=HOUR_AGO).sid == first.sid
    twilio.messages[0]["status"] = "failed"
    assert not send(twilio, look_since_at=HOUR_AGO).found


@pytest.mark.parametrize(
    ("answer", "error", "says"),
    [
        ((429, 20429), UpstreamBusyError, "asks to wait 7 s"),
        ((503, 20503), UpstreamBusyError, "503"),
        ((500, 20500), UpstreamFailedError, "500"),
        ((401, 20003), MisconfiguredError, "credentials"),
        ((400, 21610), UpstreamRejectedError, "code 21610"),
    ],
)
def test_refusals_say_what_to_do(twilio, answer, error, says):
    """Busy and broken is tried again; what must be mended names Twilio's code."""
    twilio.faults.answer = answer
    twilio.faults.retry_after_s = 7 if answer[0] == 429 else None
    with pytest.raises(error, match=says):
        send(twilio)


def test_a_wrong_number_is_refused_before_it_costs(twilio):
    """Numbers without + and country never leave; unknown ones come back with Twilio's code."""
    with pytest.raises(MisconfiguredError, match="write it with \\+"):
        send(twilio, TextMessage("015112345678", "x"))
    twilio.faults.refused_numbers["+490000000"] = 21211
    with pytest.raises(UpstreamRejectedError, match="21211"):
        send(twilio, TextMessage("+490000000", "x"))


def test_wrong_credentials_are_ours_to_mend(twilio):
    """401 names the block, not the secret."""
    with pytest.raises(MisconfiguredError) as caught:
        send(twilio, block=twilio.block(secret="hunter2"))
    assert "hunter2" not in str(caught.value)


def test_a_dead_api_is_unreachable(twilio):
    """Nobody listens: nothing was sent, and it may be tried again."""
    with pytest.raises(UnreachableError):
        send(twilio, block=twilio.block(base_url="http://127.0.0.1:1"))


def test_twilios_own_client_agrees_with_the_stand_in(twilio):
    """The stand-in speaks the protocol of the real API as its own client speaks it."""

    class ToStandIn(TwilioHttpClient):
        def request(self, method, url, *args, **options):
            return super().request(
                method, url.replace("https://api.twilio.com", twilio.url), *args, **options
            )

    account = twilio.block()
    client = Client(account.account_sid, "sandbox", http_client=ToStandIn())
    made = client.messages.create(to=MESSAGE.to, from_="+15005550006", body=MESSAGE.text)
    assert made.status == "queued"
    assert [message.sid for message in client.messages.list(to=MESSAGE.to)] == [made.sid]
    assert send(twilio, look_since_at=HOUR_AGO).sid == made.sid
    twilio.faults.answer = (400, 21610)
    with pytest.raises(TwilioRestException) as caught:
        client.messages.create(to=MESSAGE.to, from_="+15005550006", body="x")
    assert caught.value.code == 21610


@pytest.mark.parametrize(
    ("text", "count"),
    [("", 1), ("a" * 160, 1), ("a" * 161, 2), ("€" * 80, 1), ("€" * 81, 2), ("я" * 70, 1),
     ("я" * 71, 2), ("😀" * 35, 1), ("😀" * 36, 2), ("a" * 459, 3), ("a" * 460, 4)],
)  # fmt: skip
def test_segments_are_counted_as_networks_do(text, count):
    """The GSM alphabet packs 160 into one, its extension counts double, the rest is UTF-16."""
    assert segments(text) == count


@given(text=st.text(), limit=st.integers(1, 3))
def test_the_link_is_never_cut(text, limit):
    """However long the text is and in what script, the link stands whole at the end."""
    link = "https://files.example.org/r.pdf"
    whole = sms_text(text, link, max_segments=limit)
    assert whole.endswith(link)
    assert segments(whole) <= limit


def test_a_link_that_does_not_fit_is_an_error():
    """A cut link leads nowhere, so it is not sent."""
    with pytest.raises(ValueError, match="shorter address"):
        sms_text("x", "https://example.org/" + "a" * 160)
