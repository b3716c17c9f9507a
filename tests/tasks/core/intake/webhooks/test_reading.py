"""What a verified body says: one event or several, what makes each unique, what is malformed."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocks.errors import BadPayloadError, MisconfiguredError
from tasks.core.intake.webhooks.request import ReceivedEvent, WebhookRequest
from tasks.core.intake.webhooks.verifier import VerifiedRequest, Verifier

NOW = datetime(2026, 11, 24, 3, 0, tzinfo=UTC)
JSON = {"content-type": "application/json; charset=utf-8"}
FORM = {"content-type": "application/x-www-form-urlencoded"}


def received(body: bytes, *, headers=None, url="https://h.example/in", **reading) -> ReceivedEvent:
    """The one event of a request to an endpoint that lets everybody in."""
    verifier = Verifier("none", secrets=[], reading=reading)
    request = WebhookRequest("POST", url, JSON if headers is None else headers, body, NOW)
    (event,) = verifier.verify(request).read_events()
    return event


def signed(scheme: str, body: bytes, headers=None) -> VerifiedRequest:
    stamp = str(int(NOW.timestamp()))
    if scheme == "slack":
        digest = hmac.new(b"s", b"v0:" + stamp.encode() + b":" + body, "sha256").hexdigest()
        own = {"x-slack-signature": "v0=" + digest, "x-slack-request-timestamp": stamp}
    elif scheme == "github":
        own = {"x-hub-signature-256": "sha256=" + hmac.new(b"s", body, "sha256").hexdigest()}
    elif scheme == "shopify":
        digest = hmac.new(b"s", body, "sha256").digest()
        own = {"x-shopify-hmac-sha256": base64.b64encode(digest).decode()}
    elif scheme == "hubspot":
        digest = hashlib.sha256(b"s" + body).hexdigest()
        own = {"x-hubspot-signature": digest, "x-hubspot-signature-version": "v1"}
    else:
        own = {"x-dropbox-signature": hmac.new(b"s", body, "sha256").hexdigest()}
    request = WebhookRequest("POST", "https://h.example/", {**own, **(headers or JSON)}, body, NOW)
    return Verifier(scheme, secrets=["s"]).verify(request)


def test_the_body_is_the_payload_when_it_is_one_json_event():
    """Nothing is copied: the raw body serves as payload."""
    assert received(b'{"event":"INVENTORY_UPDATE"}').payload is None


def test_without_a_signed_id_the_body_makes_the_event_unique():
    """The same body is the same event whatever unsigned headers say; another body is another."""
    first = signed("github", b'{"a":1}', {**JSON, "x-github-delivery": "1"}).read_events()
    again = signed("github", b'{"a":1}', {**JSON, "x-github-delivery": "2"}).read_events()
    other = signed("github", b'{"a":2}', {**JSON, "x-github-delivery": "1"}).read_events()
    assert first[0].dedup_key == again[0].dedup_key
    assert first[0].dedup_key != other[0].dedup_key


def test_shopify_sends_one_body_for_several_topics():
    """Two topics with one body are two events."""
    keys = {
        signed("shopify", b"{}", {**JSON, "x-shopify-topic": topic}).read_events()[0].dedup_key
        for topic in ("orders/create", "orders/paid")
    }
    assert len(keys) == 2


DEEP = b"[" * 900 + b"]" * 900


@pytest.mark.parametrize(
    ("body", "headers", "reading"),
    [
        (b'[{"id": 1}, ' + DEEP + b"]", JSON, {"is_batch": True}),
        (b"payload=" + DEEP, FORM, {}),
    ],
)
def test_what_cannot_be_written_as_an_event_is_malformed(body, headers, reading):
    """JSON that is nested deeper than it can be written again is the sender's fault, and said."""
    with pytest.raises(BadPayloadError, match="nested too deeply"):
        received(body, headers=headers, **reading)


@pytest.mark.parametrize(
    ("dedup", "key"),
    [
        (["field:id"], "7"),
        (["field:customer.id+id"], "c:7"),
        (["header:X-Delivery"], "d-1"),
        (["field:missing", "field:id"], "7"),
        (["digest"], "sha256:" + hashlib.sha256(b'{"id":7,"customer":{"id":"c"}}').hexdigest()),
    ],
)
def test_an_endpoint_may_say_what_makes_an_event_unique(dedup, key):
    """Ids are found in headers, fields and nested fields, joined, and the first found counts."""
    body = b'{"id":7,"customer":{"id":"c"}}'
    assert received(body, headers={**JSON, "x-delivery": "d-1"}, dedup=dedup).dedup_key == key


@pytest.mark.parametrize(
    "body", [b'{"id":null}', b'{"id":""}', b'{"id":{}}', b'{"id":true}', b"[1]"]
)
def test_an_id_that_is_none_falls_back_to_the_body(body):
    """Only a text or a number is an id."""
    assert received(body, dedup=["field:id"]).dedup_key.startswith("sha256:")


def test_nothing_makes_every_request_an_event_of_its_own():
    """With dedup "nothing" the same body twice is two events."""
    keys = {received(b"{}", dedup=["nothing"]).dedup_key for _ in range(2)}
    assert len(keys) == 2


def test_type_and_order_are_read_where_the_endpoint_says():
    """The event type and the ordering key come from the declared places."""
    body = b'{"event":"order.paid","customer":{"id":12}}'
    event = received(body, event_type=["field:event"], ordering_key=["field:customer.id"])
    assert (event.event_type, event.ordering_key) == ("order.paid", "12")


@pytest.mark.parametrize(
    ("place", "key"),
    [("lines.1.sku", "b"), ("lines.2.sku", None), ("lines.first", None), ("1", None)],
)
def test_paths_lead_through_lists(place, key):
    """A number in a path is a position in a list; one beyond its end finds nothing."""
    body = b'{"lines":[{"sku":"a"},{"sku":"b"}]}'
    assert received(body, ordering_key=[f"field:{place}"]).ordering_key == key


@pytest.mark.parametrize("odd", ["a\x00b", "x" * 201, "\n"])
def test_odd_keys_become_hashes_and_odd_types_nothing(odd):
    """What a database could not hold as a key is hashed; as a type it is unknown."""
    body = json.dumps({"id": odd}).encode()
    event = received(body, dedup=["field:id"], event_type=["field:id"], ordering_key=["field:id"])
    assert event.dedup_key == f"sha256:{hashlib.sha256(odd.encode()).hexdigest()}"
    assert event.ordering_key == event.dedup_key
    assert event.event_type == ""


@pytest.mark.parametrize("text", ["event", "field:", "header:", "fields:a", ""])
def test_a_place_that_is_none_is_misconfigured(text):
    """The error lists how places are written."""
    with pytest.raises(MisconfiguredError, match="header:NAME"):
        Verifier("none", secrets=[], reading={"dedup": [text]})


def test_formats_that_decide_themselves_cannot_be_changed():
    """Salesforce's ids are where Salesforce puts them."""
    with pytest.raises(MisconfiguredError, match="dedup"):
        Verifier("salesforce", secrets=["00D"], reading={"dedup": ["digest"]})


def test_a_form_is_given_as_json():
    """Fields of a form become an object; a repeated field becomes a list."""
    event = received(b"a=1&b=%C3%BC&a=2&c=", headers=FORM, dedup=["field:b"])
    assert json.loads(event.payload) == {"a": ["1", "2"], "b": "ü", "c": ""}
    assert event.dedup_key == "ü"


def test_a_get_is_read_from_its_query():
    """A request without a body says everything in its URL, and that makes it unique."""
    events = [received(b"", url=f"https://h.example/in?n={n}") for n in (1, 1, 2)]
    assert [json.loads(event.payload) for event in events] == [{"n": "1"}, {"n": "1"}, {"n": "2"}]
    assert events[0].dedup_key == events[1].dedup_key != events[2].dedup_key


def test_github_may_wrap_its_json_in_a_form():
    """GitHub's other content type carries the JSON in one field."""
    body = f"payload={quote(json.dumps({'action': 'opened'}))}".encode()
    (event,) = signed("github", body, {**FORM, "x-github-event": "issues"}).read_events()
    assert json.loads(event.payload) == {"action": "opened"}
    assert event.event_type == "issues"


@pytest.mark.parametrize(
    ("body", "headers", "event_type", "key"),
    [
        (
            b'{"type":"event_callback","event_id":"Ev1","event":{"type":"message"}}',
            JSON,
            "message",
            "Ev1",
        ),
        (b"command=%2Fstock&trigger_id=13.37", FORM, "/stock", "13.37"),
        (
            b"payload=" + quote('{"type":"block_actions","trigger_id":"9"}').encode(),
            FORM,
            "block_actions",
            "9",
        ),
    ],
)
def test_slack_speaks_three_dialects(body, headers, event_type, key):
    """Events, slash commands and interactions each have a type and an id."""
    (event,) = signed("slack", body, headers).read_events()
    assert (event.event_type, event.dedup_key) == (event_type, key)


def test_slack_is_told_its_challenge():
    """A URL verification is answered in plain text and carries no event."""
    verified = signed("slack", b'{"type":"url_verification","challenge":"3eZbrw1a"}')
    assert verified.handshake.acknowledgement.body == b"3eZbrw1a"
    assert verified.read_events() == ()


def test_slack_events_that_mention_the_handshake_are_events():
    """Only the type makes a handshake, not a word in a message."""
    body = b'{"type":"event_callback","event_id":"Ev1","event":{"text":"url_verification"}}'
    verified = signed("slack", body)
    assert verified.handshake is None
    assert len(verified.read_events()) == 1


def test_hubspot_sends_arrays():
    """Each element is an event of its own, with the four fields that make it unique."""
    entries = [
        {"eventId": n, "subscriptionId": 2, "portalId": 3, "occurredAt": 4, "attemptNumber": n}
        for n in range(100)
    ]
    events = signed("hubspot", json.dumps(entries).encode()).read_events()
    assert [json.loads(event.payload) for event in events] == entries
    assert len({event.dedup_key for event in events}) == 100
    assert events[7].dedup_key == "3:2:7:4"


def test_dropbox_names_accounts_and_repeats_itself():
    """Each account is an event, in order per account; the same body again is another change."""
    body = b'{"list_folder":{"accounts":["dbid:A","dbid:B"]}}'
    events = [event for _ in range(2) for event in signed("dropbox", body).read_events()]
    assert [event.ordering_key for event in events] == ["dbid:A", "dbid:B"] * 2
    assert len({event.dedup_key for event in events}) == 4
    assert json.loads(events[0].payload) == {"account": "dbid:A"}


@pytest.mark.parametrize(
    ("scheme", "body"),
    [
        ("slack", b"{"),
        ("slack", b"[]"),
        ("hubspot", b"{}"),
        ("hubspot", b""),
        ("dropbox", b"{}"),
        ("dropbox", b"[]"),
        ("dropbox", b'{"list_folder":{"accounts":"dbid:A"}}'),
        ("dropbox", b'{"list_folder":{"accounts":[1]}}'),
        ("shopify", b"\xff"),
        ("github", b"not json"),
    ],
)
def test_authentic_and_malformed_is_told_apart(scheme, body):
    """A signed body that is not what the sender sends is malformed, not unauthentic."""
    with pytest.raises(BadPayloadError):
        signed(scheme, body).read_events()


def test_what_is_not_json_stays_as_it_is():
    """An endpoint for anything takes XML, text and bytes without looking into them."""
    for content_type in ("text/xml", "application/octet-stream", "text/plain", ""):
        event = received(
            b"<order/>", headers={"content-type": content_type}, event_type=["field:a"]
        )
        assert (event.payload, event.event_type) == (None, "")


def test_claiming_json_and_sending_none_is_malformed():
    """A body that says it is JSON must be."""
    with pytest.raises(BadPayloadError):
        received(b"<order/>")


@settings(max_examples=200, deadline=None)
@given(
    body=st.one_of(st.binary(), st.sampled_from([b"", b"[" * 5000, b"a=1&" * 2000, b"payload=1"])),
    content_type=st.sampled_from(["application/json", FORM["content-type"], "", "text/xml", "é;"]),
    url=st.text() | st.just("https://h.example/?a=\ud800"),
)
def test_reading_anything_ends_in_events_or_malformed(body, content_type, url):
    """Whatever an authentic sender sends, it is read or refused; keys fit a database."""
    try:
        event = received(
            body,
            headers={"content-type": content_type},
            url=url,
            dedup=["field:a"],
            event_type=["field:a"],
        )
    except BadPayloadError:
        return
    assert event.dedup_key.isprintable()
    assert len(event.dedup_key) <= 200
