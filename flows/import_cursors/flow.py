"""See and set the cursors of data imports from the Prefect UI."""

from __future__ import annotations

from typing import Any

from prefect import State
from prefect.states import Completed

from tasks.import_cursors import list_streams, set_cursor, show_rejects_of_streams, show_streams
from tasks.integration_flow import flow
from tasks.outcomes import failed


@flow(name="show-import-cursors")
async def show_import_cursors(rejects: int = 100) -> State[Any]:
    """Show every stream's cursor, what is under way, and what was rejected lately, in artifacts.

    Args:
        rejects: How many of the latest rejects are shown.
    """
    streams = await list_streams()
    await show_streams(streams)
    await show_rejects_of_streams(rejects)
    return Completed(message=f"{len(streams)} streams")


@flow(name="set-import-cursor")
async def set_import_cursor(
    stream: str, cursor: str | None = None, reset: bool = False, dry_run: bool = True
) -> State[Any]:
    """Put a stream's cursor elsewhere. At first it only shows it; then run it without dry run.

    The next run imports everything behind the cursor, also what was imported before. To import a
    range again and leave the cursor where it is, give the import itself the range.

    Args:
        stream: As show-import-cursors shows it.
        cursor: The new one, in the form of the present one, e.g. 2026-03-01T12:00:00Z.
        reset: Begin anew instead, as if nothing had been imported yet.
        dry_run: Only show what would be changed.
    """
    if (cursor is None) != reset:
        return failed("give a cursor, or else reset")
    before = await set_cursor(stream, cursor, dry_run=dry_run)
    await show_streams(await list_streams())
    would = "would be" if dry_run else "was"
    return Completed(message=f"{stream}: {before or 'none'} {would} set to {cursor or 'none'}")
