"""The events of own app as their subscribers receive them, on real sockets."""

from __future__ import annotations

import json
import time

import pytest
from jsonschema import Draft202012Validator
from referencing import Registry
from referencing.jsonschema import DRAFT202012
from standardwebhooks import Webhook

from sandbox.systems.own_app.serving import running_own_app
from sandbox.systems.scripted_api import ScriptedReply

CONTACT = {"contact_id": "C-1", "name": "Ann", "email": "ann@example.com"}
OK = ScriptedReply(status=204, body=b"")


def put_contact(own_app, number=1, **changes):
    contact = {**CONTACT, "contact_id": f"C-{number}", **changes}
    own_app.http.put(f"/api/v1/contacts/C-{number}", json=contact).raise_for_status()


def subscribe(own_app, url, *events):
    answer = own_app.http.post("/api/v1/webhooks", json={"url": url, "events": list(events)})
    assert answer.status_code == 201, answer.text
    return answer.json()


def received(scripted_api, count):
    """Waits for so many requests."""
    deadline = time.monotonic() + 10
    while len(scripted_api.requests) < count:
        assert time.monotonic() < deadline, f"{len(scripted_api.requests)} of {count} came"
        time.sleep(0.01)
    return [json.loads(request.body) for request in scripted_api.requests]


def settled(own_app, webhook):
    """Waits until the subscriber's answer is recorded."""
    deadline = time.monotonic() + 10
    while own_app.http.get(f"/api/v1/webhooks/{webhook['id']}").json()["last_status"] is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_each_change_is_told_with_the_record_and_its_source(own_app, scripted_api):
    """Created, updated and deleted come in order, signed, with the whole record and who did it."""
    webhook = subscribe(
        own_app, scripted_api.url, "contact.created", "contact.updated", "contact.deleted"
    )
    scripted_api.answer(OK, OK, OK)
    put_contact(own_app)
    put_contact(own_app)  # changes nothing
    own_app.http.patch(
        "/api/v1/contacts/C-1", json={"phone": "1"}, headers={"X-Source": "crm"}
    ).raise_for_status()
    own_app.http.delete("/api/v1/contacts/C-1")
    events = received(scripted_api, 3)
    assert [event["type"] for event in events] == [
        "contact.created", "contact.updated", "contact.deleted",
    ]  # fmt: skip
    assert [event["source"] for event in events] == [None, "crm", None]
    assert [event["data"]["version"] for event in events] == [1, 2, 3]
    assert events[1]["data"]["phone"] == "1"
    assert events[1]["timestamp"] == events[1]["data"]["changed_at"]
    for request, event in zip(scripted_api.requests, events, strict=True):
        Webhook(webhook["secret"]).verify(request.body, request.headers)
        assert request.headers["webhook-id"] == event["id"]


def test_events_leave_with_the_change_or_not_at_all(own_app, scripted_api):
    """A batch of which one record is refused tells nothing; one that goes in tells each once."""
    subscribe(own_app, scripted_api.url, "contact.created")
    batch = [{**CONTACT, "contact_id": f"C-{number}"} for number in range(3)]
    for key, records, status in (
        ("1", [*batch, {"contact_id": "C-4"}], 422),
        ("2", batch, 200),
        ("2", batch, 200),
    ):
        scripted_api.answer(OK, OK, OK)
        answer = own_app.http.post(
            "/api/v1/contacts/batch", json={"records": records}, headers={"Idempotency-Key": key}
        )
        assert answer.status_code == status
    put_contact(own_app, 9)
    events = received(scripted_api, 4)
    assert sorted(event["data"]["contact_id"] for event in events) == ["C-0", "C-1", "C-2", "C-9"]


def test_event_is_sent_again_until_it_is_acknowledged(own_app, scripted_api):
    """A refusal and a cut connection are met with the same event, signed afresh."""
    webhook = subscribe(own_app, scripted_api.url, "contact.created")
    scripted_api.answer(ScriptedReply(status=503), ScriptedReply(closes=True), OK)
    put_contact(own_app)
    events = received(scripted_api, 3)
    assert len({event["id"] for event in events}) == 1
    for request in scripted_api.requests:
        Webhook(webhook["secret"]).verify(request.body, request.headers)


def test_later_events_of_a_record_wait_for_its_earlier_ones(own_app, scripted_api):
    """While one record's event is refused, another record's events go on."""
    subscribe(own_app, scripted_api.url, "contact.created", "contact.updated")
    refused = []

    def refuse_first(request):
        contact = json.loads(request.body)["data"]
        if contact["contact_id"] == "C-1" and len(refused) < 2:
            refused.append(contact["name"])
            return ScriptedReply(status=500)
        return OK

    scripted_api.answer(*[refuse_first] * 8)
    put_contact(own_app, 1)
    put_contact(own_app, 1, name="Bob")
    put_contact(own_app, 2)
    put_contact(own_app, 2, name="Bob")
    names = [
        (event["data"]["contact_id"], event["data"]["name"]) for event in received(scripted_api, 6)
    ]
    assert refused == ["Ann", "Ann"]
    assert [name for id_, name in names if id_ == "C-2"] == ["Ann", "Bob"]
    assert [name for id_, name in names if id_ == "C-1"] == ["Ann", "Ann", "Ann", "Bob"]


def test_what_waits_survives_a_restart(tmp_path, scripted_api):
    """Events that nobody acknowledged are sent when the application starts again."""
    database = tmp_path / "own_app.db"
    with running_own_app(database) as own_app:
        webhook = subscribe(own_app, scripted_api.url, "contact.created")
        put_contact(own_app)
        settled(own_app, webhook)
    scripted_api.answer(OK)
    before = len(scripted_api.requests)
    with running_own_app(database):
        received(scripted_api, before + 1)
    assert len({request.headers["webhook-id"] for request in scripted_api.requests}) == 1


def test_subscriptions_are_read_changed_and_removed(own_app):
    """The secret is told once, at creation; the rest can be read and changed."""
    path = "/api/v1/webhooks"
    made = own_app.http.post(
        path, json={"url": "http://a.example/x", "events": ["order.created"], "description": "d"}
    ).json()
    assert made["secret"].startswith("whsec_")
    shown = {name: value for name, value in made.items() if name != "secret"}
    assert own_app.http.get(path).json() == {"webhooks": [shown]}
    one = f"{path}/{made['id']}"
    assert own_app.http.get(one).json() == shown
    changed = own_app.http.patch(one, json={"events": ["ticket.created"]}).json()
    assert changed == {**shown, "events": ["ticket.created"]}
    assert own_app.http.delete(one).status_code == 204
    assert [own_app.http.request(method, one).status_code for method in ("GET", "DELETE")] == [
        404, 404,
    ]  # fmt: skip
    assert own_app.http.get(path).json() == {"webhooks": []}


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "ftp://a.example"},
        {"events": []},
        {"events": ["planet.created"]},
        {"secret": "short"},
        {"unknown": 1},
    ],
)
def test_unusable_subscription_is_refused(own_app, wrong):
    """What could never be delivered is refused at once, and nothing is stored."""
    asked = {"url": "http://a.example", "events": ["order.created"], **wrong}
    assert own_app.http.post("/api/v1/webhooks", json=asked).status_code == 422
    assert own_app.http.get("/api/v1/webhooks").json() == {"webhooks": []}


def test_secret_of_the_subscriber_is_used(own_app, scripted_api):
    """Whoever brings a secret, at creation or later, finds the events signed with it."""
    first, second = "whsec_" + "A" * 32, "whsec_" + "B" * 32
    asked = {"url": scripted_api.url, "events": ["contact.created"], "secret": first}
    webhook = own_app.http.post("/api/v1/webhooks", json=asked).json()
    assert webhook["secret"] == first
    own_app.http.patch(f"/api/v1/webhooks/{webhook['id']}", json={"secret": second})
    scripted_api.answer(OK)
    put_contact(own_app)
    received(scripted_api, 1)
    Webhook(second).verify(scripted_api.requests[0].body, scripted_api.requests[0].headers)


def test_ping_tells_how_it_was_answered(own_app, scripted_api):
    """A ping is one signed attempt, whose answer the caller is told."""
    webhook = subscribe(own_app, scripted_api.url, "contact.created")
    scripted_api.answer(OK, ScriptedReply(status=401), ScriptedReply(closes=True))
    ping = f"/api/v1/webhooks/{webhook['id']}/ping"
    answers = [own_app.http.post(ping).json() for _ in range(3)]
    assert answers == [
        {"delivered": True, "status": 204},
        {"delivered": False, "status": 401},
        {"delivered": False, "status": None},
    ]
    assert own_app.http.get(f"/api/v1/webhooks/{webhook['id']}").json()["last_status"] is None
    request = scripted_api.requests[0]
    Webhook(webhook["secret"]).verify(request.body, request.headers)
    assert json.loads(request.body)["type"] == "ping"


def test_published_schemas_describe_every_event(own_app, scripted_api):
    """Each event fits the schema that the AsyncAPI document gives for its type, and no other."""
    document = own_app.http.get("/api/v1/asyncapi.json").json()
    names = [name for name in document["components"]["messages"] if name.startswith("order.")]
    subscribe(own_app, scripted_api.url, *names)
    scripted_api.answer(OK, OK)
    order = {
        "order_no": "O-1", "customer": "Ann", "ordered_at": "2026-01-31T12:00:00Z",
        "status": "open", "total": "3.00", "currency": "EUR",
        "lines": [{"sku": "W-1", "quantity": 2, "unit_price": "1.50"}],
    }  # fmt: skip
    own_app.http.put("/api/v1/orders/O-1", json=order).raise_for_status()
    own_app.http.delete("/api/v1/orders/O-1")
    registry = Registry().with_resource("urn:own-app", DRAFT202012.create_resource(document))
    for event in received(scripted_api, 2):
        for name in names:
            schema = {"$ref": f"urn:own-app#/components/schemas/{name}"}
            validator = Draft202012Validator(schema, registry=registry)
            assert validator.is_valid(event) == (name == event["type"]), name


def test_every_reference_of_the_published_document_leads_somewhere(own_app):
    """No $ref of the AsyncAPI document is broken."""
    document = own_app.http.get("/api/v1/asyncapi.json").json()

    def references(node):
        if isinstance(node, dict):
            if isinstance(node.get("$ref"), str):
                yield node["$ref"]
            for value in node.values():
                yield from references(value)
        if isinstance(node, list):
            for value in node:
                yield from references(value)

    found = set(references(document))
    assert len(found) > 40
    for reference in found:
        node = document
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]
