"""Opens the state database for the duration of a run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import Engine

from tasks.core.state.database import open_database
from tasks.core.threads import in_thread


@asynccontextmanager
async def state_database() -> AsyncIterator[Engine]:
    """Open the database of INTEGRATIONS_DATABASE_URL; close its connections at the end."""
    engine = await in_thread(open_database)
    try:
        yield engine
    finally:
        engine.dispose()
