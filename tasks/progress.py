"""Shows in the Prefect UI how far long work has come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from prefect.artifacts import acreate_progress_artifact, aupdate_progress_artifact

from tasks.core.threads import in_thread

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

    async def keep_shown(self) -> None:
        """Show it every other second, until cancelled."""
        while True:
            await asyncio.sleep(_EVERY_S)
            await self.show()

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


async def work_in_thread(work: Callable[[Callable[[float], None]], T], description: str) -> T:
    """Do something long in a thread, as `in_thread` does, with its progress in the UI.

    Args:
        work: Called with what it tells its progress.
        description: As in `Progress`.

    Returns:
        What `work` returns; its errors pass through.
    """
    progress = Progress(description)
    showing = asyncio.create_task(progress.keep_shown())
    try:
        result = await in_thread(work, progress.note)
    finally:
        showing.cancel()
        await asyncio.wait({showing})
    await progress.show(last=True)
    return result
