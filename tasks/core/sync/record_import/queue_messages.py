"""Takes what waits in a queue right now, up to a limit, and acknowledges it behind the sink."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeAlias

from blocks.errors import IntegrationError
from tasks.core.connectors.messages.message import ANSWER_TIMEOUT_S, Message, MessageSource
from tasks.core.sync.batches.result import ImportResult
from tasks.core.threads import raise_if_cancelled

Sink: TypeAlias = Callable[[Sequence[Message]], Awaitable[Mapping[int, str]]]
"""Takes messages into the application; returns the positions of bad ones, with what is wrong."""

DeadLetter: TypeAlias = Callable[[Message, str], Awaitable[None]]
"""Keeps a bad message with the reason, durably."""


async def take_waiting(
    source: MessageSource,
    sink: Sink,
    dead_letter: DeadLetter,
    *,
    limit: int,
    batch: int = 100,
    wait_s: float = 1.0,
    hold_every_s: float = 10.0,
    result: ImportResult | None = None,
) -> ImportResult:
    """Import what waits.

    Whatever the sink took and was not acknowledged comes again: it must take a message twice
    without harm, by the message's identity or by a key of its own.

    Args:
        source: Not yet open; closed at the end.
        sink: Called with up to `batch` messages; when it raises, they are given back, if the source
            answers.
        dead_letter: Called for each bad message before it is acknowledged.
        limit: At most so many messages.
        batch: Messages a call of the sink.
        wait_s: How long the queue must be silent to count as empty.
        hold_every_s: While the sink works, the queue is told so often that it does.
        result: What was imported from elsewhere, which counts towards the limit.

    Raises:
        IntegrationError: Of the source or the sink; what was imported before stays imported.
    """
    taken = result or ImportResult(unit="message", bad_word="dead-lettered")
    taken.result = "unfinished"
    try:
        await source.open()
        while taken.units < limit:
            raise_if_cancelled()
            wanted = min(batch, limit - taken.units)
            messages = await source.receive(wanted, wait_s=wait_s)
            if not messages:
                taken.result = "done"
                break
            await _import(source, messages, sink, dead_letter, taken, hold_every_s)
    finally:
        await source.close()
    return taken


async def _import(
    source: MessageSource,
    messages: Sequence[Message],
    sink: Sink,
    dead_letter: DeadLetter,
    taken: ImportResult,
    hold_every_s: float,
) -> None:
    try:
        bad = await _while_holding(source, messages, sink, hold_every_s)
        for position, reason in bad.items():
            await dead_letter(messages[position], reason)
    except BaseException:
        with contextlib.suppress(IntegrationError, TimeoutError):  # they come again, but later
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                await source.give_back(messages)
        raise
    await source.acknowledge(messages)
    taken.add_units(len(messages), list(bad.values()))


async def _while_holding(
    source: MessageSource, messages: Sequence[Message], sink: Sink, hold_every_s: float
) -> Mapping[int, str]:
    """Wait for the sink; nobody else is given the messages meanwhile."""
    importing = asyncio.ensure_future(sink(messages))
    try:
        while not (await asyncio.wait({importing}, timeout=hold_every_s))[0]:
            await source.hold(messages)
            raise_if_cancelled()
        return await importing
    finally:
        importing.cancel()
