"""The flows whose starts are measured: they do nothing, so all that is seen is the start."""

from __future__ import annotations

import asyncio

from prefect import flow


@flow
async def nothing() -> None:
    """End at once."""


@flow
async def wait(seconds: float = 600) -> None:
    """Idle, as a run does that waits for a slow partner."""
    await asyncio.sleep(seconds)
