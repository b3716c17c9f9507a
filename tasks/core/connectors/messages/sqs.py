"""Messages of an Amazon SQS queue, including those that SNS forwards to it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import orjson

from blocks.errors import (
    IntegrationError,
    MisconfiguredError,
    PermanentError,
    UnreachableError,
    UpstreamBusyError,
    UpstreamFailedError,
)
from tasks.core.connectors.messages.message import CLOSE_TIMEOUT_S, Message
from tasks.core.threads import in_thread_without_grace

_PER_CALL = 10  # the most messages SQS handles per call
_CALLS_AT_ONCE = 8
_LONGEST_POLL_S = 20
_CREDENTIALS = {
    "AccessDenied",
    "AccessDeniedException",
    "ExpiredToken",
    "InvalidClientTokenId",
    "InvalidSecurity",
    "MissingAuthenticationToken",
    "OptInRequired",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
}
_BUSY = {
    "KmsThrottled",
    "OverLimit",
    "RequestThrottled",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
}


class SqsQueue:
    """A queue, standard or FIFO; its redrive policy applies as usual.

    A message's identity is its message id, or SNS's id if SNS forwarded it, since SNS may put the
    same notification into the queue twice. The event is then what was published, without SNS's
    envelope.

    Args:
        connect: Returns a client.
        system: The queue, for errors.
        queue_url: The queue.
        visibility_timeout_s: Seconds a received message stays hidden; extended by `hold`.
    """

    def __init__(
        self,
        connect: Callable[[], Any],
        *,
        system: str,
        queue_url: str,
        visibility_timeout_s: int = 60,
    ) -> None:
        self._connect = connect
        self._system = system
        self._queue_url = queue_url
        self._visibility_timeout_s = visibility_timeout_s
        self._client: Any = None
        self._at_once = asyncio.Semaphore(_CALLS_AT_ONCE)

    @property
    def system(self) -> str:
        """Name of the queue in errors."""
        return self._system

    @property
    def reads_ahead(self) -> bool:
        """True: more may be received while earlier messages are being stored."""
        return True

    async def open(self) -> None:
        """Build the client and check that the queue exists."""
        with self._errors("connect"):
            self._client = await in_thread_without_grace(self._connect)
        await self.lag()

    async def receive(self, limit: int, *, wait_s: float) -> list[Message]:
        """Poll once; if that returns a full batch, poll several times in parallel for more."""
        poll_s = min(_LONGEST_POLL_S, max(1, round(wait_s))) if wait_s else 0
        found = await self._receive_once(min(limit, _PER_CALL), poll_s)
        if len(found) < _PER_CALL:
            return found
        calls = min(_CALLS_AT_ONCE, (limit - len(found)) // _PER_CALL)
        more = await asyncio.gather(
            *(self._receive_once(_PER_CALL, 0) for _ in range(calls)), return_exceptions=True
        )
        for batch in more:
            if isinstance(batch, list):  # a failed poll is repeated next time
                found += batch
        return found

    async def acknowledge(self, messages: Sequence[Message]) -> None:
        """Delete them."""
        await self._in_batches("delete_message_batch", "acknowledge", messages, {})

    async def hold(self, messages: Sequence[Message]) -> None:
        """Extend their visibility timeout."""
        await self._set_visibility("hold", messages, self._visibility_timeout_s)

    async def give_back(self, messages: Sequence[Message]) -> None:
        """Make them visible again at once."""
        await self._set_visibility("give back", messages, 0)

    async def lag(self) -> int | None:
        """Return roughly how many messages are visible."""
        with self._errors("look"):
            answer = await self._call(
                self._client.get_queue_attributes,
                QueueUrl=self._queue_url,
                AttributeNames=["ApproximateNumberOfMessages"],
            )
        return int(answer["Attributes"]["ApproximateNumberOfMessages"])

    async def close(self) -> None:
        """Close the connections; undeleted messages become visible after their timeout."""
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(Exception):  # the connection may be dead already
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await in_thread_without_grace(client.close)

    async def _receive_once(self, limit: int, poll_s: int) -> list[Message]:
        with self._errors("receive"):
            answer = await self._call(
                self._client.receive_message,
                QueueUrl=self._queue_url,
                MaxNumberOfMessages=limit,
                WaitTimeSeconds=poll_s,
                VisibilityTimeout=self._visibility_timeout_s,
                MessageAttributeNames=["All"],
                MessageSystemAttributeNames=["All"],
            )
        name = self._queue_url.rpartition("/")[2]
        return [_message(each, name) for each in answer.get("Messages", ())]

    async def _set_visibility(
        self, operation: str, messages: Sequence[Message], timeout_s: int
    ) -> None:
        await self._in_batches(
            "change_message_visibility_batch",
            operation,
            messages,
            {"VisibilityTimeout": timeout_s},
        )

    async def _in_batches(
        self, call: str, operation: str, messages: Sequence[Message], fields: dict[str, Any]
    ) -> None:
        batches = [messages[at : at + _PER_CALL] for at in range(0, len(messages), _PER_CALL)]
        with self._errors(operation):
            answers = await asyncio.gather(
                *(
                    self._call(
                        getattr(self._client, call),
                        QueueUrl=self._queue_url,
                        Entries=[
                            {"Id": str(number), "ReceiptHandle": message.receipt, **fields}
                            for number, message in enumerate(batch)
                        ],
                    )
                    for batch in batches
                )
            )
        refused = [each["Code"] for answer in answers for each in answer.get("Failed", ())]
        # Being late is not a failure: the message is gone, or comes again as a duplicate.
        refused = [code for code in refused if "ReceiptHandle" not in code and "Param" not in code]
        if refused:
            raise UpstreamFailedError(
                f"{len(refused)} of {len(messages)} messages failed ({refused[0]})",
                system=self._system,
                operation=operation,
            )

    async def _call(self, function: Callable[..., Any], **arguments: Any) -> Any:
        async with self._at_once:
            return await in_thread_without_grace(function, **arguments)

    @contextlib.contextmanager
    def _errors(self, operation: str) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except (BotoCoreError, ClientError, AttributeError) as exc:
            if isinstance(exc, AttributeError) and self._client is not None:
                raise
            raise self._mapped(exc, operation) from exc

    def _mapped(self, exc: Exception, operation: str) -> IntegrationError:
        from botocore import exceptions as boto

        where: dict[str, Any] = {"system": self._system, "operation": operation}
        if isinstance(exc, boto.NoCredentialsError | boto.PartialCredentialsError):
            return MisconfiguredError("no credentials are set", **where)
        if isinstance(exc, boto.NoRegionError):
            return MisconfiguredError("no region is set", **where)
        if isinstance(exc, boto.ClientError):
            code = str(exc.response.get("Error", {}).get("Code", ""))
            status = int(exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
            if "NonExistentQueue" in code or code == "QueueDoesNotExist":
                return MisconfiguredError("the queue does not exist; check its URL", **where)
            if code.rpartition(".")[2] in _CREDENTIALS or status in (401, 403):
                return MisconfiguredError(f"access was denied ({code})", **where)
            if code.rpartition(".")[2] in _BUSY or status in (429, 503):
                return UpstreamBusyError(f"SQS is busy ({code})", **where)
            if status >= 500:
                return UpstreamFailedError(f"SQS failed ({code or status})", **where)
            return PermanentError(f"SQS refused ({code or status})", **where)
        if isinstance(exc, boto.HTTPClientError | boto.ConnectionError | AttributeError):
            return UnreachableError(f"no connection ({type(exc).__name__})", **where)
        return PermanentError(f"the client refused ({type(exc).__name__})", **where)


def _message(message: dict[str, Any], queue: str) -> Message:
    attributes = message.get("Attributes", {})
    headers = [
        (name, value["StringValue"])
        for name, value in message.get("MessageAttributes", {}).items()
        if "StringValue" in value
    ]
    headers += [
        (name, attributes[name])
        for name in ("SentTimestamp", "SenderId", "MessageGroupId", "MessageDeduplicationId")
        if name in attributes
    ]
    body = message["Body"].encode()
    subject, identity, content = queue, message["MessageId"], None
    envelope = _sns_envelope(body)
    if envelope is not None:
        subject = str(envelope["TopicArn"]).rpartition(":")[2]
        identity = str(envelope["MessageId"])
        content = str(envelope["Message"]).encode("utf-8", "surrogatepass")
        headers += [
            (name, str(value["Value"]))
            for name, value in (envelope.get("MessageAttributes") or {}).items()
            if isinstance(value, dict) and "Value" in value
        ]
        headers += [("Subject", str(envelope["Subject"]))] if envelope.get("Subject") else []
    return Message(
        subject=subject,
        body=body,
        receipt=message["ReceiptHandle"],
        identity=identity,
        key=attributes.get("MessageGroupId"),
        headers=headers,
        content=content,
    )


def _sns_envelope(body: bytes) -> dict[str, Any] | None:
    """Return the envelope that SNS wraps around a forwarded message, unless delivery is raw.

    Source: https://docs.aws.amazon.com/sns/latest/dg/sns-sqs-as-subscriber.html
    """
    if b'"TopicArn"' not in body:
        return None
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    is_one = (
        isinstance(document, dict)
        and document.get("Type") == "Notification"
        and all(isinstance(document.get(n), str) for n in ("TopicArn", "MessageId", "Message"))
    )
    return document if is_one else None
