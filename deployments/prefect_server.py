"""Which Prefect server commands work on; says in one line why it is none."""

from __future__ import annotations

import asyncio

import httpx
from prefect.client.orchestration import get_client
from prefect.settings import get_current_settings

from blocks.errors import MisconfiguredError, UnreachableError

_REFUSED = (401, 403)


def require_server() -> None:
    """See that a server is named, and answers.

    Raises:
        MisconfiguredError: None is named, or it is no Prefect server that we may use.
        UnreachableError: It does not answer.
    """
    url = get_current_settings().api.url
    if url is None:  # Prefect would start a server that is gone when the command ends
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
