"""What the gateway answers, stores, notifies and logs for every kind of request."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import sqlite3
import threading
import time
from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event as sqlalchemy_event
from twilio.request_validator import RequestValidator

from deployments.services.gateway.forwarding import Forwarding
from deployments.services.gateway.receiver import Limits
from deployments.services.gateway.request_reply import reply_response
from tasks.core.intake.inbox.reply import Reply

BODY = b'{"ref": "refs/heads/main"}'
SNS = json.loads(
    (Path(__file__).parents[3] / "tasks/core/intake/webhooks/vectors/sns_messages.json").read_text()
)
TOPIC = "arn:aws:sns:eu-central-1:123456789012:orders"
OPEN = {"path": "/open", "scheme": "none"}


async def test_a_delivery_is_on_disk_as_received_before_the_answer(start, github, sign):
    """202 with the raw body and every header in the same commit as the delivery."""
    gateway = await start({"github": github})
    answer = await gateway.client.post("/github", content=BODY, headers=sign(BODY))
    assert (answer.status_code, answer.content) == (202, b"")
    ((name, integration, event, status, body, headers, content_type, payload),) = gateway.rows(
        "endpoint, integration, event, status, body, headers, r.content_type, payload"
    )
    assert (name, integration, event, status) == ("github", "shop", "push", "received")
    assert (body, content_type, payload) == (BODY, "application/json", None)
    received = dict(json.loads(headers))
    assert {key.lower(): value for key, value in sign(BODY).items()}.items() <= received.items()


async def test_a_duplicate_gets_the_same_answer_and_no_second_effect(start, github, sign):
    """Sent twice, stored once; a new delivery id on the same signed body changes nothing."""
    gateway = await start({"github": github})
    headers = sign(BODY)
    first = await gateway.client.post("/github", content=BODY, headers=headers)
    headers["X-GitHub-Delivery"] = "forged"
    again = await gateway.client.post("/github", content=BODY, headers=headers)
    assert (first.status_code, first.content) == (again.status_code, again.content)
    assert len(gateway.rows()) == 1
    assert [line["outcome"] for line in gateway.lines()] == ["accepted", "duplicate"]


async def test_two_endpoints_do_not_share_their_deliveries(start, github, sign):
    """The same body at another endpoint is another delivery."""
    gateway = await start({"one": github, "two": {**github, "path": "/two"}})
    for path in ("/github", "/two"):
        await gateway.client.post(path, content=BODY, headers=sign(BODY))
    assert len(gateway.rows()) == 2


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/nowhere", BODY, 404),
        ("POST", "/github/", BODY, 404),
        ("GET", "/", b"", 404),
        ("GET", "/github", b"", 405),
        ("DELETE", "/github", b"", 405),
        ("POST", "/github", b"x" * 101, 413),
        ("POST", "/github", BODY[:-1], 401),
    ],
)
async def test_refusals_have_their_statuses(start, github, sign, method, path, body, status):
    """Unknown path, wrong method, too large, unauthentic: each its own status, nothing stored."""
    gateway = await start({"github": {**github, "max_body_bytes": 100}})
    answer = await gateway.client.request(method, path, content=body, headers=sign(BODY))
    assert answer.status_code == status
    assert set(answer.json()) == {"error"}
    assert answer.headers.get("allow") == ("POST" if status == 405 else None)
    assert gateway.rows() == []


async def exchange(app, *messages, method="POST", path="/github", headers=()):
    """One request as an ASGI server brings it; the answer's status and how much was read."""
    queue = list(messages)
    sent = []

    async def receive():
        return queue.pop(0)

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode("utf-8", "replace"),
        "query_string": b"",
        "headers": list(headers),
        "scheme": "http",
        "client": ("127.0.0.1", 1),
    }
    await app(scope, receive, send)
    return sent[0]["status"] if sent else None, len(messages) - len(queue)


async def test_what_says_it_is_too_large_is_not_read(start, github):
    """A Content-Length over the limit is answered without reading, and the connection ends."""
    gateway = await start({"github": {**github, "max_body_bytes": 10}})
    for length in (b"11", b"9" * 5000):
        headers = [(b"content-length", length)]
        assert await exchange(gateway.app, {"type": "http.request"}, headers=headers) == (413, 0)


async def test_what_turns_out_too_large_is_read_no_further(start, github):
    """A chunked body is refused as soon as it exceeds the limit."""
    gateway = await start({"github": {**github, "max_body_bytes": 10}})
    chunk = {"type": "http.request", "body": b"x" * 6, "more_body": True}
    assert await exchange(gateway.app, chunk, chunk, chunk) == (413, 2)


async def test_a_body_in_chunks_is_put_together(start, github, sign):
    """The signature is checked over all of a chunked body."""
    gateway = await start({"github": github})

    async def chunks():
        for byte in BODY:
            yield bytes([byte])

    answer = await gateway.client.post("/github", content=chunks(), headers=sign(BODY))
    assert answer.status_code == 202
    assert gateway.rows("body") == [(BODY,)]


async def test_a_caller_that_leaves_in_the_middle_is_let_go(start, github):
    """Nothing is stored and nothing is answered to a connection that ended."""
    gateway = await start({"github": github})
    part = {"type": "http.request", "body": BODY, "more_body": True}
    assert await exchange(gateway.app, part, {"type": "http.disconnect"}) == (None, 2)
    assert gateway.rows() == []
    assert gateway.lines()[0]["outcome"] == "caller left"


async def test_a_malformed_body_of_the_right_sender_is_kept_aside(start, github, sign):
    """400, and the delivery is dead-lettered with the reason; nobody is notified."""
    gateway = await start({"github": github, "open": {**OPEN, "is_batch": True}})
    for _ in range(2):
        answer = await gateway.client.post("/github", content=b"{", headers=sign(b"{"))
        assert answer.status_code == 400
    deep = b"[" * 900 + b"]" * 900
    assert (await gateway.client.post("/open", content=deep)).status_code == 400
    assert gateway.rows("status, reason, body") == [
        ("dead_letter", "the body is not JSON", b"{"),
        ("dead_letter", "the JSON is nested too deeply", deep),
    ]
    assert gateway.notified == []


async def test_events_that_are_not_wanted_are_kept_as_ignored(start, github, sign):
    """200 for an event type that is not taken: in the log, in the inbox, no notification."""
    gateway = await start({"github": {**github, "events": ["push"]}})
    for _ in range(2):
        answer = await gateway.client.post("/github", content=BODY, headers=sign(BODY, "star"))
        assert answer.status_code == 200
    assert gateway.rows("event, status, reason") == [
        ("star", "ignored", "the endpoint takes no star events")
    ]
    assert gateway.notified == []
    assert [(line["outcome"], line["reason"]) for line in gateway.lines()] == [
        ("ignored", "star")
    ] * 2


async def test_of_a_batch_what_is_not_wanted_is_kept_as_ignored(start):
    """The rest of the batch is handled as usual; a repetition of it is a duplicate."""
    fields = {"is_batch": True, "dedup": "field:id", "event_type": "field:type"}
    gateway = await start({"open": {**OPEN, **fields, "events": ["created"]}})
    batch = [{"id": 1, "type": "seen"}, {"id": 2, "type": "created"}]
    for _ in range(2):
        assert (await gateway.client.post("/open", json=batch)).status_code == 202
    assert gateway.rows() == [("seen", "ignored"), ("created", "received")]
    assert gateway.notified == ["shop"]
    assert [line["outcome"] for line in gateway.lines()] == ["accepted", "duplicate"]


async def test_the_events_of_a_batch_share_what_is_stored_of_the_request(start):
    """One stored body and one stored list of headers, and that is all that waits for the disk."""
    gateway = await start({"open": {**OPEN, "is_batch": True, "dedup": "field:id"}})
    batch = [{"id": number, "text": "x" * 1500} for number in range(400)]  # 600 KB, times 400
    assert (await gateway.client.post("/open", json=batch)).status_code == 202
    assert (await gateway.client.get("/readyz")).status_code == 200
    assert gateway.rows("count(*), count(DISTINCT r.id)") == [(400, 1)]


async def test_a_locked_database_is_503_and_nothing_is_stored(start, github, sign, engine):
    """While another holds the lock the sender is asked to come back; afterwards it is stored."""
    gateway = await start({"github": github})
    blocker = sqlite3.connect(engine.url.database, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    answer = await gateway.client.post("/github", content=BODY, headers=sign(BODY))
    blocker.execute("ROLLBACK")
    blocker.close()
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert gateway.rows() == []
    assert (await gateway.client.get("/readyz")).status_code == 503
    answer = await gateway.client.post("/github", content=BODY, headers=sign(BODY))
    assert answer.status_code == 202


async def test_a_payload_too_large_for_the_inbox_does_not_make_the_gateway_unready(start):
    """What grows beyond the inbox's limit when it is parsed is the sender's to mend: 400."""
    gateway = await start({"open": {**OPEN, "max_body_bytes": 25 * 1024 * 1024}})
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = await gateway.client.post("/open", content=b"a=" + b'"' * 14_000_000, headers=form)
    assert answer.status_code == 400
    assert (await gateway.client.get("/readyz")).status_code == 200


async def test_a_full_database_is_503_and_nothing_is_half_stored(start, engine):
    """Of a batch that does not fit nothing is stored; what fits afterwards is."""

    @sqlalchemy_event.listens_for(engine, "connect")
    def limit(connection, _record):
        connection.execute("PRAGMA max_page_count = 100")

    gateway = await start({"open": {**OPEN, "is_batch": True}})
    batch = [{"n": n, "text": "x" * 20_000} for n in range(30)]
    answer = await gateway.client.post("/open", json=batch)
    assert answer.status_code == 503
    assert gateway.rows() == []
    assert (await gateway.client.post("/open", json=[{"n": 1}])).status_code == 202


async def test_too_many_requests_at_once_are_sent_away(start, github, sign):
    """Beyond the limit the answer is 503 at once, and the body is not read."""
    gateway = await start({"github": github}, limits=Limits(max_at_once=1))
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def slow():
        arrived.set()
        await go_on.wait()
        yield BODY

    first = asyncio.create_task(gateway.client.post("/github", content=slow(), headers=sign(BODY)))
    await arrived.wait()
    second = await gateway.client.post("/github", content=BODY, headers=sign(BODY))
    go_on.set()
    assert (await first).status_code == 202
    assert (second.status_code, second.headers["retry-after"]) == (503, "5")


async def test_a_body_that_never_ends_is_given_up(start, github, sign):
    """A sender that stops in the middle gets 408 and holds nothing for ever."""
    gateway = await start({"github": github}, limits=Limits(body_timeout_s=0.01))

    async def stuck(sent: bytes):
        if sent:
            yield sent
        await asyncio.sleep(60)
        yield BODY[3:]

    for sent in (b"", BODY[:3]):
        answer = await gateway.client.post("/github", content=stuck(sent), headers=sign(BODY))
        assert answer.status_code == 408


async def test_a_batch_is_one_delivery_an_event_with_one_stored_body(start):
    """An array becomes a delivery each, all in one commit, sharing the raw body."""
    gateway = await start(
        {"open": {**OPEN, "is_batch": True, "dedup": "field:id", "event_type": "field:type"}}
    )
    batch = [{"id": n, "type": "created"} for n in range(100)]
    await gateway.client.post("/open", json=batch)
    rows = gateway.rows("event, payload, r.id, ordering_key")
    assert [json.loads(payload) for _, payload, _, _ in rows] == batch
    assert len({request for _, _, request, _ in rows}) == 1


async def test_an_ordering_key_is_stored_with_the_delivery(start):
    """The declared place is where the key to order by comes from."""
    gateway = await start({"open": {**OPEN, "ordering_key": "field:customer.id"}})
    await gateway.client.post("/open", json={"customer": {"id": 7}})
    assert gateway.rows("ordering_key") == [("7",)]


@pytest.mark.parametrize(
    ("response", "status", "has_body"),
    [
        ("provider", 202, False),
        ("ok", 200, False),
        ("no-content", 204, False),
        ("receipt", 202, True),
    ],
)
async def test_an_endpoint_chooses_how_it_thanks(start, response, status, has_body):
    """200, 202, 204, or a receipt with the ids; a duplicate gets the same."""
    gateway = await start({"open": {**OPEN, "response": response}})
    answers = [await gateway.client.post("/open", json={"n": 1}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [status, status]
    assert answers[0].content == answers[1].content
    if has_body:
        assert answers[0].json() == {"deliveries": [id_ for (id_,) in gateway.rows("d.id")]}


async def test_slack_is_answered_its_challenge(start):
    """The handshake is signed, answered and not stored."""
    gateway = await start(
        {"slack": {"path": "/s", "scheme": "slack", "secrets": {"env": "SECRET"}}}
    )
    body = b'{"type":"url_verification","challenge":"3eZbrw1a"}'
    stamp = str(int(time.time()))
    key = b"It's a Secret to Everybody"
    digest = hmac.new(key, f"v0:{stamp}:".encode() + body, hashlib.sha256).hexdigest()
    headers = {"X-Slack-Signature": f"v0={digest}", "X-Slack-Request-Timestamp": stamp}
    answer = await gateway.client.post("/s", content=body, headers=headers)
    assert (answer.status_code, answer.text) == (200, "3eZbrw1a")
    assert (await gateway.client.post("/s", content=body)).status_code == 401
    assert gateway.rows() == []


async def test_dropbox_is_answered_its_challenge(start):
    """A GET is echoed as plain text that no browser takes for a page."""
    gateway = await start(
        {"dropbox": {"path": "/d", "scheme": "dropbox", "secrets": {"env": "SECRET"}}}
    )
    answer = await gateway.client.get("/d", params={"challenge": "<script>"})
    assert (answer.status_code, answer.text) == (200, "<script>")
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.headers["x-content-type-options"] == "nosniff"


SNS_ENDPOINT = {"path": "/sns", "scheme": "sns", "options": {"topic_arns": [TOPIC]}}


def certificate(_url: str) -> bytes:
    return SNS["certificate"].encode()


async def test_an_sns_subscription_is_confirmed_or_asked_for_again(start):
    """200 once Amazon's URL was called with success, else 503, which Amazon repeats."""
    message = dict(SNS["messages"])["SubscriptionConfirmation"]
    for confirms, status in ((True, 200), (False, 503)):
        gateway = await start(
            {"sns": SNS_ENDPOINT}, confirms=confirms, fetch_certificate=certificate
        )
        answer = await gateway.client.post("/sns", json=message)
        assert answer.status_code == status
        assert gateway.confirmed == [message["SubscribeURL"]]
        assert gateway.rows() == []


async def test_a_strangers_sns_topic_is_not_confirmed(start):
    """Nothing is called for a topic that is not declared."""
    endpoint = {**SNS_ENDPOINT, "options": {"topic_arns": [TOPIC + "x"]}}
    gateway = await start({"sns": endpoint}, fetch_certificate=certificate)
    message = dict(SNS["messages"])["SubscriptionConfirmation"]
    assert (await gateway.client.post("/sns", json=message)).status_code == 401
    assert gateway.confirmed == []


async def test_sns_notifications_are_stored_and_a_cancellation_is_noted(start):
    """A notification is a delivery with its parsed message; the end of a subscription is logged."""
    gateway = await start({"sns": SNS_ENDPOINT}, fetch_certificate=certificate)
    for kind in ("Notification, JSON message", "UnsubscribeConfirmation"):
        answer = await gateway.client.post("/sns", json=dict(SNS["messages"])[kind])
        assert answer.status_code == 200
    ((payload,),) = gateway.rows("payload")
    assert json.loads(payload)["message"] == {"order": 42}
    assert [line["outcome"] for line in gateway.lines()] == ["accepted", "notice"]


async def test_certificates_that_do_not_come_hold_up_nobody_else(start):
    """While their host is silent, threads for everything else are free."""
    asked, comes = threading.Event(), threading.Event()

    def late(url):
        asked.set()
        comes.wait(30)
        return certificate(url)

    gateway = await start({"sns": SNS_ENDPOINT}, fetch_certificate=late)
    message = dict(SNS["messages"])["Notification, JSON message"]
    sending = [
        asyncio.create_task(gateway.client.post("/sns", json=message | {"Signature": "AAAA"}))
        for _ in range(40)
    ]
    try:
        while not asked.is_set():  # noqa: ASYNC110 - it is another thread's
            await asyncio.sleep(0.002)
        await asyncio.wait_for(asyncio.to_thread(lambda: None), 20)
    finally:
        comes.set()
        answers = await asyncio.gather(*sending)
    assert {answer.status_code for answer in answers} == {401}


async def test_salesforce_hears_ack_and_its_session_is_stored_nowhere(start, engine):
    """One Ack for all notifications; the session id is in no table."""
    body = (
        b'<Envelope xmlns="http://schemas.xmlsoap.org/soap/envelope/"><Body>'
        b'<notifications xmlns="http://soap.sforce.com/2005/09/outbound">'
        b"<OrganizationId>00D5g000004WxyzEAC</OrganizationId><SessionId>SESSION!1</SessionId>"
        b"<Notification><Id>04l1</Id></Notification><Notification><Id>04l2</Id></Notification>"
        b"</notifications></Body></Envelope>"
    )
    endpoint = {"path": "/sf/${TOKEN}", "scheme": "salesforce", "secrets": {"env": "ORGS"}}
    environment = {"TOKEN": "Tok-en", "ORGS": "00D5g000004Wxyz"}
    gateway = await start({"salesforce": endpoint}, environment=environment)
    answer = await gateway.client.post("/sf/Tok-en", content=body)
    assert answer.status_code == 200
    assert b"<Ack>true</Ack>" in answer.content
    assert answer.headers["content-type"] == "text/xml; charset=utf-8"
    assert [key for (key,) in gateway.rows("dedup_key")] == ["04l1", "04l2"]
    files = Path(engine.url.database).parent.glob("state.db*")
    assert not any(b"SESSION!1" in file.read_bytes() for file in files)
    assert "Tok-en" not in gateway.log.getvalue().decode()


async def test_credentials_are_neither_stored_nor_logged(start):
    """Authorization, Cookie and the key's own header stay out of the inbox and the log."""
    gateway = await start(
        {
            "open": OPEN,
            "key": {
                "path": "/key",
                "scheme": "api-key",
                "secrets": {"env": "SECRET"},
                "options": {"header": "X-Shop-Key"},
            },
        }
    )
    secrets = {"Authorization": "Basic hush", "Cookie": "hush=1", "X-Shop-Key": "hush-key"}
    await gateway.client.post("/open?hush=1", json={"n": 1}, headers=secrets)
    secrets["X-Shop-Key"] = "It's a Secret to Everybody"
    await gateway.client.post("/key", json={"n": 1}, headers=secrets)
    stored = [dict(json.loads(headers)) for (headers,) in gateway.rows("headers")]
    assert all("authorization" not in each and "cookie" not in each for each in stored)
    assert "x-shop-key" not in stored[1]
    log = json.dumps(gateway.lines())
    assert "hush" not in log
    assert "Secret" not in log


async def test_the_log_says_who_was_answered_what_and_why(start, github, sign):
    """One line a request, with the delivery's id or the reason for a refusal."""
    gateway = await start({"github": github})
    await gateway.client.post("/github", content=BODY, headers=sign(BODY))
    await gateway.client.post("/github", content=BODY)
    await gateway.client.post("/nowhere", content=BODY)
    accepted, refused, lost = gateway.lines()
    assert accepted["deliveries"] == [id_ for (id_,) in gateway.rows("d.id")]
    assert (accepted["endpoint"], accepted["status"], accepted["caller"]) == (
        "github",
        202,
        "203.0.113.7",
    )
    assert refused["reason"] == "the header x-hub-signature-256 is missing"
    assert (lost["path"], lost["outcome"]) == ("/nowhere", "not found")


@pytest.mark.parametrize(("allowed", "status"), [("203.0.113.0/24", 202), ("198.51.100.1", 403)])
async def test_only_allowed_addresses_may_call(start, allowed, status):
    """An address outside the list is refused before anything is read."""
    gateway = await start({"open": {**OPEN, "allowed_ips": [allowed]}})
    assert (await gateway.client.post("/open", json={})).status_code == status


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["198.51.100.7", "192.0.2.66"], 403),
        (["198.51.100.7", "192.0.2.66, 203.0.113.8"], 403),
        (["192.0.2.66", "198.51.100.7"], 202),
        (["192.0.2.66", "198.51.100.7", "203.0.113.8"], 202),
    ],
)
async def test_what_a_proxy_appends_counts_also_on_a_line_of_its_own(start, lines, status):
    """A stranger's own X-Forwarded-For is not believed when the proxy adds a line behind it."""
    gateway = await start(
        {"open": {**OPEN, "allowed_ips": ["198.51.100.7"]}},
        forwarding=Forwarding(trusted_proxies=[ip_network("203.0.113.0/24")]),
    )
    headers = [("X-Forwarded-For", line) for line in lines]
    answer = await gateway.client.post("/open", content=b"{}", headers=headers)
    assert answer.status_code == status
    caller = "198.51.100.7" if status == 202 else "192.0.2.66"
    assert [line["caller"] for line in gateway.lines()] == [caller]


async def test_a_signed_url_is_the_one_the_trusted_proxy_tells(start):
    """Twilio's signature over the public URL fits behind a proxy, and only a trusted one."""
    url = "https://hooks.shop.example/twilio?a=1"
    signature = RequestValidator("token").compute_signature(url, {"MessageSid": "SM1"})
    headers = {
        "X-Twilio-Signature": signature,
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "hooks.shop.example",
    }
    endpoint = {"path": "/twilio", "scheme": "twilio", "secrets": {"env": "TOKEN"}}
    for proxies, status in ((["203.0.113.0/24"], 200), ([], 401)):
        gateway = await start(
            {"twilio": endpoint},
            environment={"TOKEN": "token"},
            forwarding=Forwarding(trusted_proxies=[ip_network(each) for each in proxies]),
        )
        answer = await gateway.client.post(
            "/twilio?a=1", data={"MessageSid": "SM1"}, headers=headers
        )
        assert answer.status_code == status
    assert json.loads(gateway.rows("payload")[0][0]) == {"MessageSid": "SM1"}


async def test_an_endpoint_without_its_secret_answers_503_and_the_others_work(start, github, sign):
    """What is not set up loses nothing, says so, and stops nobody else."""
    missing = {"path": "/stripe", "scheme": "stripe", "secrets": {"env": "UNSET"}}
    gateway = await start({"github": github, "stripe": missing})
    answer = await gateway.client.post("/stripe", content=b"{}")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "300")
    (line,) = gateway.lines()
    assert line["reason"] == "there is no secret; set UNSET"
    assert "path" not in line  # it may hold a secret
    state = (await gateway.client.get("/readyz")).json()
    assert state == {"status": "ready", "endpoints": 1, "not_set_up": ["stripe"]}
    answer = await gateway.client.post("/github", content=BODY, headers=sign(BODY))
    assert answer.status_code == 202


SECRET_PATH = {"path": "/hooks/crm/${TOKEN}", "scheme": "none"}


async def test_of_a_path_that_is_not_known_the_log_tells_what_is_declared(start):
    """A slip in a path that is secret does not bring the secret into the log."""
    gateway = await start({"crm": SECRET_PATH, "open": OPEN}, environment={"TOKEN": "Tok-en"})
    for path in ("/hooks/crm/Tok-en/", "/hook/crm/Tok-en", "/Tok-en", "/open/Tok-en/crm?Tok-en"):
        assert (await gateway.client.post(path, content=b"{}")).status_code == 404
    assert [line["path"] for line in gateway.lines()] == [
        "/hooks/crm/…/",
        "/…/crm/…",
        "/…",
        "/open/…/crm",
    ]


async def test_a_path_whose_variable_is_not_set_answers_503(start):
    """What would be at the path is not lost because of a variable that a deployment forgot."""
    gateway = await start({"crm": SECRET_PATH, "open": OPEN}, environment={})
    statuses = {
        path: (await gateway.client.post(path, content=b"{}")).status_code
        for path in ("/hooks/crm/Tok-en", "/hooks/crm/", "/hooks/crm/Tok/en", "/open")
    }
    assert list(statuses.values()) == [503, 404, 404, 202]
    line = gateway.lines()[0]
    assert (line["endpoint"], line["outcome"], line.get("path")) == ("crm", "not set up", None)
    assert line["reason"].startswith("set TOKEN to")
    assert "Tok" not in gateway.log.getvalue().decode()


async def test_both_secrets_pass_while_one_is_changed(start, github, sign):
    """The old and the new secret are accepted at once, and no other."""
    endpoint = {**github, "secrets": {"env": ["SECRET", "OLD"]}}
    gateway = await start({"github": endpoint}, environment={"SECRET": "new", "OLD": "old"})
    for secret, status in (("old", 202), ("new", 202), ("older", 401)):
        headers = sign(BODY, secret=secret)
        answer = await gateway.client.post("/github", content=BODY, headers=headers)
        assert answer.status_code == status


async def test_a_204_says_nothing_of_a_length(start):
    """A 204 has no body, and no Content-Length that tells its size."""
    gateway = await start({"open": {**OPEN, "response": "no-content"}})
    answer = await gateway.client.post("/open", content=b"{}")
    assert (answer.status_code, answer.content) == (204, b"")
    assert "content-length" not in answer.headers
    assert [name for name, _ in reply_response(Reply(204)).start["headers"]] == []


async def test_the_notifier_is_notified_of_what_is_new(start, github, sign):
    """A new delivery notifies its integration."""
    gateway = await start({"github": github})
    await gateway.client.post("/github", content=BODY, headers=sign(BODY))
    for _ in range(100):
        if gateway.notified:
            break
        await asyncio.sleep(0.01)
    assert gateway.notified == ["shop"]


async def test_health_and_metrics_are_served(start, github, sign):
    """Health says alive; the metrics count requests, deliveries and seconds."""
    gateway = await start({"github": github})
    for _ in range(2):
        await gateway.client.post("/github", content=BODY, headers=sign(BODY))
    assert (await gateway.client.get("/healthz")).json() == {"status": "alive"}
    metrics = (await gateway.client.get("/metrics")).text
    assert 'gateway_requests_total{endpoint="github",outcome="accepted"} 1.0' in metrics
    assert 'gateway_deliveries_total{endpoint="github",kind="duplicate"} 1.0' in metrics
    assert 'gateway_request_seconds_count{endpoint="github"} 2.0' in metrics


SCHEMES = {
    "github": {},
    "slack": {},
    "stripe": {},
    "standard-webhooks": {},
    "twilio": {},
    "hubspot": {},
    "square": {},
    "dropbox": {},
    "salesforce": {},
    "sns": {},
    "basic": {},
    "bearer": {},
    "none": {},
    "hmac": {"options": {"message": "{method}{url}{body}"}},
}
HEADERS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                *(b"authorization", b"content-type", b"content-length", b"x-forwarded-for"),
                *(b"x-hub-signature-256", b"stripe-signature", b"webhook-signature", b"host"),
                *(b"x-twilio-signature", b"x-hubspot-signature-v3", b"x-signature", b"webhook-id"),
            ]
        ),
        st.binary(max_size=40) | st.sampled_from([b"Basic Og==", b"application/json", b"99999999"]),
    ),
    max_size=6,
)


async def test_no_request_whatever_causes_a_500(start):
    """Arbitrary methods, paths, headers, bodies and disconnects are answered, and with no 5xx."""
    gateway = await start(
        {
            scheme: {"path": f"/{scheme}", "scheme": scheme, "secrets": {"env": "SECRET"}, **more}
            for scheme, more in SCHEMES.items()
        },
        environment={"SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"},
        fetch_certificate=certificate,
        forwarding=Forwarding(trusted_proxies=[ip_network("127.0.0.0/8")]),
    )
    loop = asyncio.get_running_loop()

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        method=st.sampled_from(["POST", "GET", "PUT", "HEAD", "BREW"]),
        path=st.sampled_from([f"/{scheme}" for scheme in SCHEMES]) | st.text(),
        headers=HEADERS,
        bodies=st.lists(
            st.binary() | st.sampled_from([b"{}", b"[]", b"<a/>"]), min_size=1, max_size=3
        ),
        leaves=st.booleans(),
    )
    def attack(method, path, headers, bodies, leaves):
        messages = [{"type": "http.request", "body": body, "more_body": True} for body in bodies]
        messages.append({"type": "http.disconnect"} if leaves else {"type": "http.request"})
        attempt = exchange(gateway.app, *messages, method=method, path=path, headers=headers)
        status, _ = asyncio.run_coroutine_threadsafe(attempt, loop).result()
        if status is None:
            assert leaves
        else:
            assert status in {200, 202, 400, 401, 404, 405, 413}

    await asyncio.to_thread(attack)
    assert not any(line["outcome"] == "failed" for line in gateway.lines())
