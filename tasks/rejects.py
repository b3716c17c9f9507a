"""Shows in the Prefect UI which records an import did not take, and why."""

from __future__ import annotations

import re
from collections.abc import Sequence

from prefect.artifacts import acreate_table_artifact

from tasks.core.sync.record_import.importing import ItemReject


async def show_rejects(key: str, description: str, rejects: Sequence[ItemReject]) -> None:
    """Put a table of rejected records into the Prefect UI, without their values; none if empty.

    Args:
        key: Of the artifact; written as such keys may be.
        description: Whose records.
        rejects: At most a hundred are there.
    """
    if not rejects:
        return
    await acreate_table_artifact(
        key=dashed(key),
        description=description,
        table=[
            {
                "Entry": reject.entry,
                "Line": reject.line or "",
                "Column": reject.column,
                "Why": reject.reason,
            }
            for reject in rejects
        ],
    )


def dashed(name: str) -> str:
    """A name as an artifact's key may be: lower-case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
