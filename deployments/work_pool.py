"""The work pool that all deployments run in."""

from __future__ import annotations

import asyncio

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectNotFound

WORK_POOL = "integrations"


def ensure_work_pool(name: str) -> None:
    """Create a process work pool unless one with that name exists."""
    asyncio.run(_ensure(name))


async def _ensure(name: str) -> None:
    async with get_client() as client:
        try:
            await client.read_work_pool(name)
        except ObjectNotFound:
            await client.create_work_pool(WorkPoolCreate(name=name, type="process"))
