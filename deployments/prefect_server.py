"""Checks the Prefect server that commands use; says in one line what is wrong with it."""

from __future__ import annotations

import asyncio

import httpx
from prefect.client.orchestration import get_client
from prefect.settings import get_current_settings

from blocks.errors import MisconfiguredError, UnreachableError

_REFUSED = (401, 403)


def require_server() -> None:
    """Check that a server is configured and responds.

    Raises:
        MisconfiguredError: None is configured, or it is not a Prefect server that we may use.
        UnreachableError: It does not respond.
    """
    url = get_current_settings().api.url
    if url is None:  # Prefect would start a temporary server that ends with the command
        raise MisconfiguredError(
            "no server is named; set PREFECT_API_URL, e.g. to http://127.0.0.1:4200/api",
            system="Prefect",
            operation="connect",
        )
    try:
        asyncio.run(_ask())
    except httpx.HTTPStatusError as exc:
        status = exc.response.status_code
        advice = (
            "set PREFECT_API_KEY or PREFECT_API_AUTH_STRING"
            if status in _REFUSED
            else "is PREFECT_API_URL the address of a Prefect API?"
        )
        raise MisconfiguredError(
            f"it answers {status}: {advice}", system=url, operation="connect"
        ) from exc
    except (httpx.TransportError, httpx.InvalidURL) as exc:
        raise UnreachableError(
            f"it does not answer ({exc}); is it running, and PREFECT_API_URL right?",
            system=url,
            operation="connect",
        ) from exc


async def _ask() -> None:
    async with get_client() as client:
        await client.read_work_pools(limit=1)
