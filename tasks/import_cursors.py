"""Look at the cursors of data imports and set them, as tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TypeVar

from prefect import task
from prefect.artifacts import acreate_table_artifact

from tasks.core.state.database import open_database
from tasks.core.sync.api_import.cursors import Cursors, StreamState
from tasks.core.sync.api_import.windows import Windows
from tasks.core.threads import in_thread

T = TypeVar("T")


@task
async def list_streams() -> list[StreamState]:
    """All streams, by name."""
    return await _operate(lambda cursors: cursors.streams())


@task(task_run_name="set cursor of {stream}")
async def set_cursor(stream: str, cursor: str | None, *, dry_run: bool) -> str | None:
    """Put a cursor elsewhere, or only tell where it is.

    Args:
        stream: Its name.
        cursor: None for the beginning.
        dry_run: Change nothing.

    Returns:
        Where it was.

    Raises:
        IntegrationError: As in `tasks.core.sync.api_import.cursors.Cursors.set`.
    """
    return await _operate(lambda cursors: cursors.set(stream, cursor, dry_run=dry_run))


async def show_streams(streams: Sequence[StreamState]) -> None:
    """Put a table of streams into the Prefect UI."""
    await acreate_table_artifact(
        key="import-cursors",
        description="How far data imports have come",
        table=[
            {
                "Stream": each.stream,
                "Cursor": each.value or "",
                "Moved at": _shown(each.advanced_at),
                "Run at it": each.owner or "",
                "Under way": ", ".join(name or "what is new" for name in each.open_windows),
                "Pages read of it": each.pages,
                "Records remembered": each.taken,
                "Rejects of 30 days": each.rejected,
            }
            for each in streams
        ],
    )


async def show_rejects_of_streams(limit: int) -> None:
    """Put a table of the latest rejects into the Prefect UI; none if there are none."""
    rejects = await _operate(lambda cursors: Windows(cursors).latest_rejects(limit=limit))
    if not rejects:
        return
    await acreate_table_artifact(
        key="import-rejects",
        description="Records that data imports did not take, the latest first",
        table=[
            {
                "Stream": stream,
                "Record": reject.id,
                "Changed at": _shown(reject.changed_at),
                "Field": reject.field,
                "Why": reject.reason,
            }
            for stream, reject in rejects
        ],
    )


async def _operate(action: Callable[[Cursors], T]) -> T:
    def run() -> T:
        engine = open_database()
        try:
            return action(Cursors(engine))
        finally:
            engine.dispose()

    return await in_thread(run)


def _shown(at: datetime | None) -> str:
    return "" if at is None else f"{at:%Y-%m-%d %H:%M:%S} UTC"
