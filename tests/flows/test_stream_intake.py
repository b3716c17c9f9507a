"""Order events from any source, as a whole: source, listener, inbox, flow and application."""

from __future__ import annotations

import asyncio
import json
from email import message_from_bytes
from pathlib import Path

import pytest
import yaml

from blocks.errors import BadPayloadError
from blocks.http_api import ApiKeyAuth, HttpApi
from deployments.services.listeners.declarations import declaration_files, read_declarations
from deployments.services.listeners.listener import Pace
from deployments.services.listeners.service import Listeners
from flows.listener_status.flow import show_sources
from flows.stream_intake.flow import stream_intake
from flows.stream_intake.orders import import_orders
from sandbox.systems import imap_server, order_events, s3_server
from sandbox.systems.order_mail import order_mail
from sandbox.systems.web_server import WebServer
from tasks.api import open_api
from tasks.core.intake.inbox.delivery import Delivery
from tasks.core.state.database import open_database

# Prefect's own clients leave sockets to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

FLOW = Path(__file__).parents[2] / "flows" / "stream_intake"
EVENT = json.loads((FLOW / "samples" / "order-events" / "order-placed.json").read_text())
QUICK = {"consumer": {"idle_timeout_s": 0, "retry_delays_s": [0.01], "concurrency": 4}}


@pytest.fixture
def application(own_app):
    """The block for the application."""
    return HttpApi(base_url=f"{own_app.base_url}/api/v1", auth=ApiKeyAuth(key=own_app.api_key))


@pytest.fixture
def take(application):
    """Imports a delivery, without Prefect."""
    with open_api(application) as api:

        def take(payload, *, body=None, content_type="application/json"):
            sample = Delivery.sample(payload, event="x", integration="x", id="d1")
            if body is not None:
                sample = Delivery(
                    **{
                        name: getattr(sample, name)
                        for name in Delivery.__slots__
                        if name not in ("body", "content_type")
                    },
                    body=body,
                    content_type=content_type,
                )
            return import_orders(api, sample)

        yield take


def order_numbers(own_app):
    return sorted(record["order_no"] for record in own_app.records("orders"))


def test_an_event_from_a_topic_of_sns_is_the_event(take, own_app):
    """What the gateway received from SNS is imported as what was published."""
    assert take({"topic_arn": "arn:x", "message_id": "m", "message": EVENT}) is None
    assert order_numbers(own_app) == ["S-1001"]


def test_other_events_are_ignored_and_broken_ones_refused(take, own_app):
    """An event of another type needs nothing done; an order without a number is a bad payload."""
    assert take({"type": "customer.moved"}).status == "ignored"
    with pytest.raises(BadPayloadError, match=r"order\.order_no"):
        take({**EVENT, "order": {**EVENT["order"], "order_no": ""}})
    assert order_numbers(own_app) == []


def test_the_good_orders_of_a_mail_are_imported_and_the_bad_ones_named(take, own_app):
    """An attached file goes through the file readers; its bad row dead-letters the delivery."""
    good, bad = EVENT["order"], {**EVENT["order"], "order_no": "S-1002", "total": "much"}
    mail = order_mail(json.dumps([good, bad]).encode(), file_name="orders.json")
    outcome = take({}, body=mail, content_type="message/rfc822")
    assert outcome.status == "dead_letter"
    assert outcome.message.startswith("1 orders imported, 1 not: orders.json line")
    assert order_numbers(own_app) == ["S-1001"]


def test_an_order_that_the_application_refuses_holds_up_no_other_of_its_mail(take, own_app):
    """The delivery is dead-lettered with the reason, and the orders around it are in."""
    orders = [{**EVENT["order"], "order_no": f"S-{n}"} for n in range(3)]
    orders[1]["customer"] = "far too long" * 2000
    mail = order_mail(json.dumps(orders).encode(), file_name="orders.json")
    outcome = take({}, body=mail, content_type="message/rfc822")
    assert outcome.status == "dead_letter"
    assert outcome.message.startswith("2 orders imported, 1 not: orders.json line 1 customer: ")
    assert order_numbers(own_app) == ["S-0", "S-2"]


def test_a_mail_whose_rest_is_read_differently_when_it_is_replayed_goes_in(take, own_app):
    """Other orders than the first time have another key, so that the application takes them."""
    good, bad = EVENT["order"], {**EVENT["order"], "order_no": "S-1002", "total": "much"}
    for total, status in (("much", "dead_letter"), ("12.00", "done")):
        mail = order_mail(
            json.dumps([good, {**bad, "total": total}]).encode(), file_name="orders.json"
        )
        assert take({}, body=mail, content_type="message/rfc822").status == status
    assert order_numbers(own_app) == ["S-1001", "S-1002"]


def test_an_attachment_that_is_no_file_of_orders_holds_up_no_other(take, own_app):
    """The delivery is dead-lettered for it, with what was imported."""
    mail = order_mail(json.dumps([EVENT["order"]]).encode())
    logo = order_mail(b"pixels", file_name="logo.png")
    [attached] = [part for part in message_from_bytes(logo).walk() if part.get_filename()]
    both = message_from_bytes(mail)
    both.attach(attached)
    outcome = take({}, body=both.as_bytes(), content_type="message/rfc822")
    assert outcome.message.startswith(
        "1 orders imported, 1 not: logo.png: the name tells no format"
    )
    assert order_numbers(own_app) == ["S-1001"]


def test_a_mail_travels_from_the_mailbox_into_the_application(
    own_app, application, runs, inbox, tmp_path
):
    """A partner's mail is fetched, moved, stored, and its order imported by the flow."""
    application.save("own-app", overwrite=True)
    with imap_server.start() as mailbox:
        mailbox.deliver(order_mail(json.dumps([EVENT["order"]]).encode()))
        mailbox.deliver(order_mail(b"[]", sender="stranger@elsewhere.example"))
        environment = {
            "ORDERS_MAIL_HOST": "127.0.0.1",
            "ORDERS_MAIL_PORT": str(mailbox.port),
            "ORDERS_MAIL_TLS": "false",
            "ORDERS_MAIL_USER": mailbox.username,
            "ORDERS_MAIL_PASSWORD": mailbox.password,
        }
        declared = read_declarations([FLOW / "sources.yaml"], environment)
        table = asyncio.run(listen_until_stored(declared, runs))
        assert {name: mailbox.count(name) for name in ("Processed", "Refused", "INBOX")} == {
            "Processed": 1,
            "Refused": 1,
            "INBOX": 0,
        }
    rows = {row["Source"]: row for row in table}
    assert (rows["orders-mail"]["State"], rows["orders-mail"]["Refused"]) == ("listening", 1)
    assert "set ORDERS_KAFKA_SERVERS" in rows["orders-kafka"]["Last error"]
    assert runs.start(stream_intake, **QUICK).is_completed()
    assert order_numbers(own_app) == ["S-1001"]


async def listen_until_stored(declared, runs):
    """Listen until one message is stored and one refused; returns the table in the UI."""
    engine = open_database()
    listeners = Listeners(engine, declared, notify=lambda _: None, pace=Pace(poll_s=0.1))
    web = WebServer(listeners.web_app(), port=0, name="listeners")
    until = asyncio.Event()
    running = asyncio.create_task(listeners.run(until))
    [status] = listeners.statuses
    for _ in range(500):
        if status.counts["new"] and status.counts["refused"]:
            break
        await asyncio.sleep(0.02)
    await asyncio.to_thread(runs.start, show_sources, listeners=[web.url])
    table = (await asyncio.to_thread(runs.artifacts))[-1].data
    until.set()
    await running
    await asyncio.to_thread(web.stop)
    engine.dispose()
    return json.loads(table) if isinstance(table, str) else table


def test_the_declared_sources_are_complete():
    """The sources of the flow can be used once their variables are set."""
    text = (FLOW / "sources.yaml").read_text()
    names = {part.partition("}")[0] for part in text.split("${")[1:]}
    values = dict.fromkeys(names, "xyz") | {
        "ORDERS_KAFKA_SECURITY": "ssl",
        "ORDERS_SQS_URL": "https://sqs.eu-central-1.amazonaws.com/1/orders",
        "ORDERS_MAIL_PORT": "993",
        "ORDERS_MAIL_TLS": "true",
    }
    found = read_declarations([FLOW / "sources.yaml"], values)
    assert len(found) == len(yaml.safe_load(text)["sources"]) == 7
    assert FLOW / "sources.yaml" in declaration_files()


async def test_the_demos_partners_reach_the_inbox_over_kafka_sqs_and_mail(inbox):
    """What the sandbox's partners announce is taken by the sources that the flow declares."""
    engine = open_database()
    with s3_server.start() as aws, order_events.start(aws.endpoint_url) as partners:
        declared = read_declarations([FLOW / "sources.yaml"], partners.environment())
        listeners = Listeners(engine, declared, notify=lambda _: None, pace=Pace(poll_s=0.1))
        until = asyncio.Event()
        running = asyncio.create_task(listeners.run(until))
        assert len(await asyncio.to_thread(partners.send)) == 3
        for _ in range(1000):
            if all(status.counts["new"] for status in listeners.statuses):
                break
            await asyncio.sleep(0.02)
        until.set()
        await running
    engine.dispose()
    assert {each.name: dict(each.counts) for each in listeners.statuses} == {
        name: {"new": 1} for name in ("orders-kafka", "orders-sqs", "orders-mail")
    }
