"""Show in the UI how the sources are doing: state, rate, lag, what went wrong."""

from __future__ import annotations

import os
from typing import Any

import httpx
from prefect import State, task
from prefect.artifacts import acreate_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed

from tasks.integration_flow import flow, run_name
from tasks.outcomes import failed

LISTENERS_VARIABLE = "INTEGRATIONS_LISTENERS"
_DEFAULT_LISTENER = "http://127.0.0.1:8090"
_TIMEOUT_S = 5.0


@flow(name="show-sources", flow_run_name=run_name("sources"))
async def show_sources(listeners: list[str] | None = None) -> State[Any]:
    """Put a table of all sources, of every integration, into the Prefect UI.

    The run fails, and names the sources, when one is not listening.

    Args:
        listeners: Addresses of the listener processes; empty: those that INTEGRATIONS_LISTENERS
            names, separated by spaces, else the one on this machine.
    """
    listeners = listeners or os.environ.get(LISTENERS_VARIABLE, _DEFAULT_LISTENER).split()
    sources = [source for url in listeners for source in await ask_listener(url)]
    await acreate_table_artifact(
        key="sources", description="Queues, topics and mailboxes", table=list(map(_row, sources))
    )
    down = [
        f"{source['name']}: {source['state']} ({source.get('last_error')})"
        for source in sources
        if source["state"] not in ("listening", "not set up")
    ]
    if down:
        return failed("; ".join(down))
    return Completed(message=f"{sum(s['state'] == 'listening' for s in sources)} sources listen")


@task(task_run_name="ask {url}", cache_policy=NO_CACHE)
async def ask_listener(url: str) -> list[dict[str, Any]]:
    """What one listener process says of its sources; one that does not answer is a source, too."""
    try:
        async with httpx.AsyncClient(timeout=_TIMEOUT_S) as client:
            answer = await client.get(f"{url.rstrip('/')}/sources")
            found: list[dict[str, Any]] = answer.raise_for_status().json()
    except (httpx.HTTPError, ValueError) as exc:
        error = f"no answer ({type(exc).__name__}); is python -m deployments.listeners running?"
        return [{"name": url, "integration": "", "state": "down", "last_error": error}]
    return found


def _row(source: dict[str, Any]) -> dict[str, Any]:
    counts = source.get("messages", {})
    return {
        "Source": source["name"],
        "Integration": source["integration"],
        "State": source["state"],
        "Waiting there": "" if source.get("lag") is None else source["lag"],
        "Per minute": source.get("per_minute", ""),
        "New": counts.get("new", 0),
        "Duplicate": counts.get("duplicate", 0),
        "Dead-lettered": counts.get("dead_letter", 0),
        "Refused": counts.get("refused", 0),
        "Last message": source.get("last_message_at") or "",
        "Last error": source.get("last_error") or "",
    }
