"""Shows in the Prefect UI how far long work has come."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from prefect.artifacts import acreate_progress_artifact, aupdate_progress_artifact

_EVERY_S = 2.0
T = TypeVar("T")


class Progress:
    """The progress of one piece of work, as an artifact made when it takes long enough.

    Args:
        description: What the artifact says of the work.
    """

    def __init__(self, description: str) -> None:
        self._description = description
        self._fraction = 0.0
        self._shown = 0.0
        self._artifact_id: Any = None

    def note(self, fraction: float) -> None:
        """Called from the working thread: the fraction done, 0 to 1."""
        self._fraction = fraction

    async def show(self, *, last: bool = False) -> None:
        """Bring the artifact up to date if there is something new."""
        if last:
            if self._artifact_id is None:
                return
            self._fraction = 1.0
        if self._fraction == self._shown:
            return
        percent = round(self._fraction * 100, 1)
        if self._artifact_id is None:
            self._artifact_id = await acreate_progress_artifact(
                progress=percent, description=self._description
            )
        else:
            await aupdate_progress_artifact(self._artifact_id, progress=percent)
        self._shown = self._fraction


async def work_in_thread(
    work: Callable[[Callable[[float], None], threading.Event], T], description: str
) -> T:
    """Do something long in a thread, with its progress in the UI.

    Args:
        work: Called with what it tells its progress, and an event that asks it to stop, which is
            set when the run is cancelled.
        description: As in `Progress`.

    Returns:
        What `work` returns; its errors pass through.
    """
    progress = Progress(description)
    stop = threading.Event()
    working = asyncio.create_task(asyncio.to_thread(work, progress.note, stop))
    try:
        while not working.done():
            await asyncio.wait({working}, timeout=_EVERY_S)
            await progress.show()
        result = await working
    finally:
        stop.set()
    await progress.show(last=True)
    return result
