"""Messages of a Redis stream."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import orjson

from blocks.errors import (
    IntegrationError,
    MisconfiguredError,
    PermanentError,
    UnreachableError,
    UpstreamBusyError,
)
from tasks.core.connectors.messages.message import CLOSE_TIMEOUT_S, Message

if TYPE_CHECKING:
    from redis.asyncio import Redis


class RedisStream:
    """A consumer of a group on a stream; the group is created if missing.

    If an entry has the field `body_field`, that is its body and the others are its headers;
    otherwise its fields as a JSON object are the body. Its identity is its id.

    Args:
        connect: Returns a client.
        system: The server, for errors.
        stream: The stream's key.
        group: The group's name.
        consumer: This consumer's name; must be the same after a restart.
        body_field: The field that holds the event.
        take_over_after_s: Entries that another consumer has had this long are taken over.
    """

    def __init__(
        self,
        connect: Callable[[], Redis],
        *,
        system: str,
        stream: str,
        group: str,
        consumer: str,
        body_field: str = "body",
        take_over_after_s: float = 60.0,
    ) -> None:
        self._connect = connect
        self._system = f"{system}/{stream}"
        self._stream = stream
        self._group = group
        self._consumer = consumer
        self._body_field = body_field.encode()
        self._take_over_after_ms = int(take_over_after_s * 1000)
        self._client: Redis | None = None
        self._own_from: str | None = "0"
        self._take_over_from = "0-0"

    @property
    def system(self) -> str:
        """Name of the server and the stream in errors."""
        return self._system

    @property
    def reads_ahead(self) -> bool:
        """True: more may be received while earlier messages are being stored."""
        return True

    async def open(self) -> None:
        """Connect, and create the group if missing: it starts with the oldest entry."""
        from redis.exceptions import ResponseError

        self._client = client = self._connect()
        self._own_from = "0"  # first this consumer's own unacknowledged entries
        self._take_over_from = "0-0"
        with self._errors("connect"):
            try:
                await client.xgroup_create(self._stream, self._group, id="0", mkstream=True)
            except ResponseError as exc:
                if not str(exc).startswith("BUSYGROUP"):
                    raise

    async def receive(self, limit: int, *, wait_s: float) -> list[Message]:
        """Return own unacknowledged entries first, then new ones, then those others left."""
        with self._errors("receive"):
            if self._own_from is not None:
                found = await self._read(self._own_from, limit)
                self._own_from = found[-1][0].decode() if found else None
            else:
                found = await self._read(">", limit)
            if not found:
                found = await self._take_over(limit)
            if not found and self._own_from is None and wait_s:
                found = await self._read(">", limit, block_ms=max(1, int(wait_s * 1000)))
        # the fields are gone if the entry was trimmed before it was acknowledged
        return [self._message(id_, fields or {}) for id_, fields in found]

    async def acknowledge(self, messages: Sequence[Message]) -> None:
        """Remove them from the group's pending list."""
        if messages:
            with self._errors("acknowledge"):
                ids = [message.receipt for message in messages]
                await self._open_client.xack(self._stream, self._group, *ids)

    async def hold(self, messages: Sequence[Message]) -> None:
        """Restart the time until others take over."""
        if messages:
            with self._errors("hold"):
                await self._open_client.xclaim(
                    self._stream,
                    self._group,
                    self._consumer,
                    min_idle_time=0,
                    message_ids=[message.receipt for message in messages],
                    justid=True,
                )

    async def give_back(self, messages: Sequence[Message]) -> None:
        """Re-read own entries from the start next time; others take over after a while."""
        self._own_from = "0"

    async def lag(self) -> int | None:
        """Return how many entries the group has not delivered yet; None if Redis cannot say."""
        with self._errors("look"):
            groups = await self._open_client.xinfo_groups(self._stream)
        for group in groups:
            if group["name"] == self._group.encode():
                lag: int | None = group.get("lag")
                return lag
        return None

    async def close(self) -> None:
        """Close the connection."""
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(Exception):  # the connection may be dead already
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await client.aclose(close_connection_pool=True)

    async def _read(
        self, after: str, limit: int, *, block_ms: int | None = None
    ) -> list[tuple[bytes, dict[bytes, bytes]]]:
        found: Any = await self._open_client.xreadgroup(
            self._group, self._consumer, {self._stream: after}, count=limit, block=block_ms
        )
        if not found:
            return []
        [(_, entries)] = found.items() if isinstance(found, dict) else found
        # the newer protocol wraps the entries of each stream in one more list
        if entries and entries[0] and isinstance(entries[0][0], list | tuple):
            [entries] = entries
        return list(entries)

    async def _take_over(self, limit: int) -> list[tuple[bytes, dict[bytes, bytes]]]:
        answer: Any = await self._open_client.xautoclaim(
            self._stream,
            self._group,
            self._consumer,
            min_idle_time=self._take_over_after_ms,
            start_id=self._take_over_from,
            count=limit,
        )
        self._take_over_from = answer[0].decode()
        return list(answer[1])

    @property
    def _open_client(self) -> Redis:
        if self._client is None:
            raise ConnectionResetError
        return self._client

    def _message(self, id_: bytes, fields: dict[bytes, bytes]) -> Message:
        entry = id_.decode()
        body = fields.get(self._body_field)
        is_whole = body is None
        text = {
            _text(name): _text(value)
            for name, value in fields.items()
            if is_whole or name != self._body_field
        }
        if body is None:
            body = orjson.dumps(text)
        return Message(
            subject=self._stream,
            body=body,
            receipt=entry,
            identity=f"{self._stream}:{entry}",
            headers=[("entry-id", entry), *text.items()],
            content_type=text.get("content-type", ""),
        )

    @contextlib.contextmanager
    def _errors(self, operation: str) -> Iterator[None]:
        from redis.exceptions import RedisError

        try:
            yield
        except IntegrationError:
            raise
        except (RedisError, OSError) as exc:
            raise self._mapped(exc, operation) from exc

    def _mapped(self, exc: Exception, operation: str) -> IntegrationError:
        from redis import exceptions as redis

        where: dict[str, Any] = {"system": self._system, "operation": operation}
        if isinstance(exc, redis.AuthenticationError | redis.NoPermissionError):
            return MisconfiguredError("the server refused the login or the command", **where)
        if isinstance(exc, redis.BusyLoadingError | redis.TryAgainError | redis.OutOfMemoryError):
            return UpstreamBusyError(f"the server is busy ({type(exc).__name__})", **where)
        if isinstance(exc, redis.ReadOnlyError):
            return UpstreamBusyError("the server is a replica right now", **where)
        if isinstance(exc, OSError | redis.ConnectionError | redis.TimeoutError):
            return UnreachableError(f"no connection ({type(exc).__name__})", **where)
        if isinstance(exc, redis.ResponseError) and str(exc).startswith("NOGROUP"):
            return UpstreamBusyError("the group is gone; it is created again", **where)
        if isinstance(exc, redis.ResponseError) and str(exc).startswith("WRONGTYPE"):
            return MisconfiguredError("the key holds something other than a stream", **where)
        return PermanentError(f"the server refused ({type(exc).__name__})", **where)


def _text(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")
