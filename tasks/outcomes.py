"""Ends task and flow runs that failed in an expected way: with a message, without a traceback."""

from __future__ import annotations

import logging
from typing import Any

from prefect import State
from prefect.states import Failed


def failed(message: str, *, data: Any = None) -> State[Any]:
    """The state to return from a task or flow that failed as its callers expect it to.

    Args:
        message: What the operator reads: what happened, where, what to do.
        data: What `await state.aresult(raise_on_failure=False)` gives to the caller.
    """
    return Failed(message=message, data=data)


class _WithoutEmptyTraceback(logging.Filter):
    """Prefect asks for a traceback even when no exception was raised: 'NoneType: None'."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and record.exc_info[0] is None:
            record.exc_info = None
        return True


logging.getLogger("prefect.task_runs").addFilter(_WithoutEmptyTraceback())
