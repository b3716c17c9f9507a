"""Messages of an MQTT topic.

The client is paho-mqtt, because aiomqtt acknowledges a message before its user has seen it and
drops it when its own queue is full.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from blocks.errors import (
    IntegrationError,
    MisconfiguredError,
    PermanentError,
    UnreachableError,
    UpstreamBusyError,
)
from tasks.core.connectors.messages.message import CLOSE_TIMEOUT_S, Message
from tasks.core.threads import in_thread_without_grace

if TYPE_CHECKING:
    from paho.mqtt.client import Client, MQTTMessage

_SESSION_EXPIRY_S = 7 * 24 * 3600
_REFUSED = {0x84, 0x85, 0x86, 0x87, 0x8A, 0x8C, 0x8F, 0x90, 0x9E, 0xA2}
_BUSY = {0x88, 0x89, 0x97, 0x9F}


class MqttTopic:
    """A subscription with QoS 1 in a persistent session.

    MQTT messages have no identity; publishers can put one into the payload or, with MQTT 5, into
    a user property.

    Args:
        make_client: Returns a client for a client id; it must not acknowledge by itself.
        host: The broker.
        port: Its port.
        keepalive_s: Keep-alive interval of the connection.
        system: The broker, for errors.
        topics: May have wildcards, or be shared subscriptions ("$share/group/topic").
        client_id: The session's name; two processes with the same name disconnect each other.
        max_waiting: How many messages the broker sends ahead, up to 65,535.
    """

    def __init__(
        self,
        make_client: Callable[[str], Client],
        *,
        host: str,
        port: int,
        keepalive_s: int,
        system: str,
        topics: Sequence[str],
        client_id: str,
        max_waiting: int = 1000,
    ) -> None:
        self._make_client = make_client
        self._address = (host, port, keepalive_s)
        self._system = system
        self._topics = topics
        self._client_id = client_id
        self._max_waiting = max_waiting
        self._client: Client | None = None
        self._connecting = threading.Lock()
        self._arrived: asyncio.Queue[MQTTMessage | None] = asyncio.Queue()

    @property
    def system(self) -> str:
        """Name of the broker in errors."""
        return self._system

    @property
    def reads_ahead(self) -> bool:
        """True: more may be received while earlier messages are being stored."""
        return True

    async def open(self) -> None:
        """Connect and subscribe; the session resumes where it was."""
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties
        from paho.mqtt.subscribeoptions import SubscribeOptions

        loop = asyncio.get_running_loop()
        self._arrived = arrived = asyncio.Queue[Any]()
        connected: asyncio.Future[Any] = loop.create_future()
        subscribed: asyncio.Future[list[Any]] = loop.create_future()

        def tell(waiting: asyncio.Future[Any], result: Any) -> None:
            if not waiting.done():
                waiting.set_result(result)

        def ended() -> None:
            arrived.put_nowait(None)
            for waiting in (connected, subscribed):
                if not waiting.done():
                    waiting.set_exception(ConnectionResetError())
                    waiting.exception()  # marks it as retrieved: perhaps nobody waits

        def from_its_thread(function: Callable[..., None], *arguments: Any) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(function, *arguments)

        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = _SESSION_EXPIRY_S
        properties.ReceiveMaximum = self._max_waiting
        with self._errors("connect"):
            self._client = client = self._make_client(self._client_id)
            self._connecting = connecting = threading.Lock()
            client.on_connect = lambda _c, _u, _f, code, _p: from_its_thread(tell, connected, code)
            client.on_subscribe = lambda _c, _u, _m, codes, _p: from_its_thread(
                tell, subscribed, codes
            )
            client.on_disconnect = lambda *_: from_its_thread(ended)
            client.on_message = lambda _c, _u, message: from_its_thread(arrived.put_nowait, message)

            def connect() -> None:
                with connecting:
                    client.connect(*self._address, clean_start=False, properties=properties)

            await in_thread_without_grace(connect)
            client.loop_start()
            async with asyncio.timeout(client.connect_timeout):
                self._check([await connected])
                client.subscribe([(topic, SubscribeOptions(qos=1)) for topic in self._topics])
                self._check(await subscribed)

    async def receive(self, limit: int, *, wait_s: float) -> list[Message]:
        """Return messages that the broker sent ahead."""
        try:
            async with asyncio.timeout(wait_s):
                found = [await self._arrived.get()]
        except TimeoutError:
            if self._client is None or not self._client.is_connected():
                # the library's thread may end silently
                raise self._gone("receive") from None
            return []
        while len(found) < limit and not self._arrived.empty():
            found.append(self._arrived.get_nowait())
        if None in found:
            raise self._gone("receive")
        return [_message(each) for each in found if each is not None]

    async def acknowledge(self, messages: Sequence[Message]) -> None:
        """Acknowledge each, in order."""
        client = self._client
        if client is None or not client.is_connected():
            raise self._gone("acknowledge")
        for message in messages:
            mid, qos = message.receipt
            client.ack(mid, qos)

    async def hold(self, messages: Sequence[Message]) -> None:
        """Do nothing: the broker waits once `max_waiting` messages are unacknowledged."""

    async def give_back(self, messages: Sequence[Message]) -> None:
        """Disconnect: the broker redelivers unacknowledged messages when the session resumes."""
        await self.close()

    async def lag(self) -> int | None:
        """Return None: MQTT does not report it."""
        return None

    async def close(self) -> None:
        """Disconnect; the broker keeps the session."""
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(Exception):  # the connection may be dead already
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await in_thread_without_grace(_leave, client, self._connecting)

    def _gone(self, operation: str) -> UnreachableError:
        return UnreachableError(
            "the connection is gone; what was not acknowledged comes again",
            system=self._system,
            operation=operation,
        )

    def _check(self, codes: Sequence[Any]) -> None:
        for code in codes:
            if not code.is_failure:
                continue
            kind = PermanentError
            if code.value in _REFUSED:
                kind = MisconfiguredError
            error = UpstreamBusyError if code.value in _BUSY else kind
            raise error(
                f"the broker refused: {code.getName()}; check login, permissions and topics",
                system=self._system,
                operation="connect",
            )

    @contextlib.contextmanager
    def _errors(self, operation: str) -> Iterator[None]:
        try:
            yield
        except IntegrationError:
            raise
        except OSError as exc:  # TimeoutError and ssl.SSLError are
            # the library leaves a failed handshake's socket open until its frames are cleared
            traceback.clear_frames(exc.__traceback__)
            raise UnreachableError(
                f"no connection ({type(exc).__name__})", system=self._system, operation=operation
            ) from exc
        except ValueError as exc:
            raise MisconfiguredError(
                f"the client refuses the settings ({exc})",
                system=self._system,
                operation=operation,
            ) from exc


def _leave(client: Client, connecting: threading.Lock) -> None:
    with connecting:  # a cancelled caller may have left it connecting
        try:
            client.disconnect()
            client.loop_stop()
        finally:
            client._reset_sockets()  # noqa: SLF001 - else they are left to the garbage collector


def _message(message: MQTTMessage) -> Message:
    properties = message.properties
    headers = list(getattr(properties, "UserProperty", ()))
    if message.retain:
        headers.append(("retained", "true"))
    return Message(
        subject=message.topic,
        body=bytes(message.payload),
        receipt=(message.mid, message.qos),
        headers=headers,
        content_type=getattr(properties, "ContentType", ""),
    )
