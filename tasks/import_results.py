"""Runs imports as task runs, shows in the Prefect UI what became of them, and ends flow runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from prefect import State, Task
from prefect.artifacts import acreate_table_artifact
from prefect.states import Completed

from tasks.core.sync.batches.result import ImportResult, RejectedRecord
from tasks.outcomes import failed

R = TypeVar("R", bound=ImportResult)

_REJECTS = {"Entry": "id", "Line": "line", "Column": "field", "Why": "reason"}


async def run_import(
    importing: Task[..., Any],
    what: Any,
    new_result: Callable[..., R],
    *,
    retries: int,
    retry_delay_s: float,
) -> R:
    """Run an import's task, again if what interrupted it may pass; a failure is a result.

    Args:
        importing: The task; its state holds the result, or the error that ended it.
        what: Describes the import.
        new_result: Makes the result of an import that failed.
        retries: How often it is tried again.
        retry_delay_s: Seconds before that.
    """
    with_retries = importing.with_options(retries=retries, retry_delay_seconds=retry_delay_s)
    state: State[Any] = await with_retries(what, return_state=True)
    result = await state.aresult(raise_on_failure=False)
    if isinstance(result, ImportResult):
        return result  # type: ignore[return-value]
    reason = state.message or f"unexpected {type(result).__name__}; see the log of its task run"
    return new_result(result="failed", reason=reason)


def ended(result: ImportResult, *, data: Any = None) -> State[Any]:
    """The state to return from a task or flow that imported: the summary is its message.

    Args:
        result: What became of the import.
        data: What `await state.aresult(raise_on_failure=False)` gives to the caller.
    """
    if result.is_good:
        return Completed(message=result.summary(), data=data)
    return failed(result.summary(), data=data)


async def show_table(key: str, description: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Put a table into the Prefect UI; none if it is empty.

    Args:
        key: Of the artifact; written as such keys may be.
        description: What the table tells.
        rows: Heading to value; instants and what is missing are written for people.
    """
    if rows:
        await acreate_table_artifact(
            key=re.sub(r"[^a-z0-9]+", "-", key.lower()).strip("-"),
            description=description,
            table=[{name: _shown(value) for name, value in row.items()} for row in rows],
        )


async def show_rejects(
    key: str,
    description: str,
    rejects: Sequence[RejectedRecord],
    columns: Mapping[str, str] = _REJECTS,
) -> None:
    """Put a table of rejected records into the Prefect UI, without their values; none if empty.

    Args:
        key: As in `show_table`.
        description: Whose records.
        rejects: As far as they are kept.
        columns: Heading to attribute of a reject.
    """
    rows = [
        {name: getattr(reject, attribute) or "" for name, attribute in columns.items()}
        for reject in rejects
    ]
    await show_table(key, description, rows)


def _shown(value: Any) -> Any:
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S} UTC"
    return "" if value is None else value
