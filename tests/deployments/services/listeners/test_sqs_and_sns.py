"""What SNS forwards to a queue, FIFO queues, and redrive policies."""

from __future__ import annotations

import asyncio
import importlib
import json
import sqlite3

import pytest

from sandbox.systems.message_brokers import Sqs


@pytest.fixture
def queue(aws):
    """Makes queues, and gives their declarations."""
    made = []

    def queue(*, fifo=False, attributes=None):
        broker = Sqs(aws)
        attributes = dict(attributes or {})
        if fifo:
            broker.name += ".fifo"
            attributes["FifoQueue"] = "true"
        broker.queue_url = broker.client.create_queue(QueueName=broker.name, Attributes=attributes)[
            "QueueUrl"
        ]
        made.append(broker)
        return broker

    yield queue
    for broker in made:
        broker.client.delete_queue(QueueUrl=broker.queue_url)


@pytest.fixture
def topic(aws, queue):
    """Makes topics that forward to a queue; gives the client and the topic's name."""
    boto3 = importlib.import_module("boto3")
    sns = boto3.client(
        "sns",
        endpoint_url=aws,
        region_name="us-east-1",
        aws_access_key_id="sandbox",
        aws_secret_access_key="sandbox",
    )

    def topic(broker, **subscription):
        arn = sns.create_topic(Name=f"topic-{broker.name}")["TopicArn"]
        sns.subscribe(
            TopicArn=arn, Protocol="sqs", Endpoint=arn_of(broker), Attributes=subscription
        )
        return sns, arn

    return topic


def arn_of(broker):
    found = broker.client.get_queue_attributes(
        QueueUrl=broker.queue_url, AttributeNames=["QueueArn"]
    )
    return found["Attributes"]["QueueArn"]


def receive(broker, **options):
    """What another consumer gets."""
    return broker.client.receive_message(QueueUrl=broker.queue_url, **options)


def declaration(broker, **fields):
    return {**broker.declaration(*broker.address), **fields}


async def test_what_sns_forwards_is_the_event_without_its_envelope(
    queue, topic, listening, inbox, eventually
):
    """The payload is what was published, its attributes are headers, and the topic its subject."""
    broker = queue()
    sns, arn = topic(broker)
    event = {"type": "order.placed", "order": {"order_no": "Ü-1"}}
    sns.publish(
        TopicArn=arn,
        Message=json.dumps(event),
        Subject="An order",
        MessageAttributes={"kind": {"DataType": "String", "StringValue": "order.placed"}},
    )
    fields = declaration(broker, event="header:kind", ordering_key="field:order.order_no")
    async with listening(fields):
        await eventually(inbox.count, 1)
    [row] = inbox.rows()
    assert json.loads(row.payload) == event
    assert json.loads(row.body)["Type"] == "Notification"
    assert (row.event, row.ordering_key) == ("order.placed", "Ü-1")
    assert ["Subject", "An order"] in json.loads(row.headers)


async def test_a_notification_that_sns_forwards_twice_is_one_delivery(
    queue, topic, listening, inbox, eventually
):
    """SNS repeats under its own id, whatever id SQS gives the second message."""
    broker = queue()
    sns, arn = topic(broker)
    sns.publish(TopicArn=arn, Message='{"id": 1}')
    received = broker.client.receive_message(QueueUrl=broker.queue_url, VisibilityTimeout=0)
    [message] = received["Messages"]
    broker.client.send_message(QueueUrl=broker.queue_url, MessageBody=message["Body"])
    async with listening(declaration(broker)) as listeners:
        [status] = listeners.statuses
        await eventually(lambda: dict(status.counts), {"new": 1, "duplicate": 1})
    assert inbox.count() == 1


async def test_raw_delivery_of_sns_needs_no_unwrapping(queue, topic, listening, inbox, eventually):
    """With RawMessageDelivery the message itself is in the queue, and is the event."""
    broker = queue()
    sns, arn = topic(broker, RawMessageDelivery="true")
    sns.publish(TopicArn=arn, Message='{"id": 1}')
    async with listening(declaration(broker)):
        await eventually(inbox.count, 1)
    assert inbox.bodies() == [b'{"id": 1}']


async def test_an_event_that_only_looks_like_an_envelope_stays_whole(
    queue, listening, inbox, eventually
):
    """A TopicArn in somebody's own event does not make it SNS's."""
    broker = queue()
    body = b'{"TopicArn": "mine", "Message": 5}'
    await broker.publish([body])
    async with listening(declaration(broker)):
        await eventually(inbox.count, 1)
    [row] = inbox.rows()
    assert (bytes(row.body), row.payload) == (body, None)


async def test_a_fifo_queue_keeps_the_order_of_each_group(queue, listening, inbox, eventually):
    """The message group is the ordering key, and each group arrives in the order it was sent."""
    broker = queue(fifo=True, attributes={"ContentBasedDeduplication": "true"})
    groups = ("a", "b", "c")
    for number in range(20):
        for group in groups:
            broker.client.send_message(
                QueueUrl=broker.queue_url,
                MessageBody=json.dumps({"group": group, "number": number}),
                MessageGroupId=group,
            )
    async with listening(declaration(broker)):
        await eventually(inbox.count, 60)
    for group in groups:
        mine = [json.loads(row.body)["number"] for row in inbox.rows() if row.ordering_key == group]
        assert mine == list(range(20))


async def test_while_we_wait_for_the_inbox_nobody_else_gets_the_message(
    queue, listening, inbox, eventually
):
    """While the inbox is locked the message stays invisible, and no receive is counted."""
    dead = queue()
    policy = json.dumps({"deadLetterTargetArn": arn_of(dead), "maxReceiveCount": "1"})
    broker = queue(attributes={"RedrivePolicy": policy})
    await broker.publish([b'{"id": 1}'])
    lock = sqlite3.connect(inbox.engine.url.database, isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    try:
        async with listening(declaration(broker, visibility_timeout_s=2)) as listeners:
            [status] = listeners.statuses
            await eventually(lambda: status.state, "waiting for the inbox")
            for _ in range(10):  # twice the time for which the message is ours
                await asyncio.sleep(0.4)
                assert "Messages" not in receive(broker, VisibilityTimeout=0)
            assert status.state == "waiting for the inbox"
            lock.execute("ROLLBACK")
            await eventually(inbox.count, 1)
    finally:
        lock.close()
    assert "Messages" not in receive(broker)  # which would move it there
    assert "Messages" not in receive(dead)


async def test_a_redrive_policy_works_as_ever(queue, listening, inbox, eventually):
    """A message that others received too often is in the dead-letter queue and not with us."""
    dead = queue()
    policy = json.dumps({"deadLetterTargetArn": arn_of(dead), "maxReceiveCount": "1"})
    broker = queue(attributes={"RedrivePolicy": policy})
    await broker.publish([b'{"id": "poison"}'])
    broker.client.receive_message(QueueUrl=broker.queue_url, VisibilityTimeout=0)
    await broker.publish([b'{"id": "good"}'])
    async with listening(declaration(broker)):
        await eventually(inbox.count, 1)
    assert inbox.bodies() == [b'{"id": "good"}']
    [message] = receive(dead)["Messages"]
    assert message["Body"] == '{"id": "poison"}'
