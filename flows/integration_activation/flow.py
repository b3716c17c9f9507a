"""Activate an integration, deactivate it, and mend what third parties have forgotten."""

from __future__ import annotations

import os
from typing import Any

from prefect import State
from prefect.states import Completed

from blocks.errors import IntegrationError
from tasks.activation import (
    declared_integration,
    desired_registrations,
    known_states,
    mend,
    problems,
    register_all,
    show_registrations,
    summary,
    switch,
    working_on,
)
from tasks.integration_flow import flow
from tasks.outcomes import failed


@flow(name="activate-integration", flow_run_name="activate {integration}")
async def activate_integration(integration: str, public_url: str | None = None) -> State[Any]:
    """Register every endpoint of an integration at its third parties and switch it on.

    What is right stays, what differs is changed, what was registered before and is declared no
    more is removed; registrations of others are never touched. Safe to repeat, also after a run
    that died half-way.

    Args:
        integration: Its name, as its package below flows/ is called.
        public_url: How third parties reach the gateway, e.g. "https://hooks.example"; None for
            the worker's INTEGRATIONS_PUBLIC_URL.
    """
    try:
        declared = declared_integration(integration)
        name, desired = (
            declared.integration,
            desired_registrations(declared, public_url, os.environ),
        )
        async with working_on(name, desired, is_active=True, public_url=public_url or "") as work:
            done = await register_all(work)
            switched = [] if problems(done) else await switch(work, on=True)
    except IntegrationError as error:
        return failed(f"not activated: {error}")
    await show_registrations(name, done)
    if problems(done):
        return failed(f"not switched on, because not all is registered: {problems(done)}")
    return Completed(message=f"{summary(done)}; switched on: {', '.join(switched) or 'nothing'}")


@flow(name="deactivate-integration", flow_run_name="deactivate {integration}")
async def deactivate_integration(integration: str) -> State[Any]:
    """Remove an integration's registrations and stop its schedules and triggers; data stays.

    Args:
        integration: Its name, as its package below flows/ is called.
    """
    name = integration.replace("-", "_")
    try:
        if name not in {each.integration for each in await known_states()}:
            name = declared_integration(name).integration
        async with working_on(name, [], is_active=False) as work:
            done = await register_all(work)
            switched = await switch(work, on=False)
    except IntegrationError as error:
        return failed(str(error))
    await show_registrations(name, done)
    if problems(done):
        return failed(f"switched off, but not all is removed: {problems(done)}")
    return Completed(message=f"{summary(done)}; switched off: {', '.join(switched) or 'nothing'}")


@flow(name="check-registrations")
async def check_registrations() -> State[Any]:
    """Look whether every registration is there as it should be, and mend what is not.

    Third parties remove or disable registrations, after failed deliveries for instance. What an
    activation or deactivation left undone is done, too: at last its deployments are switched. What
    somebody has paused or resumed by hand meanwhile stays so.
    """
    checked = [await mend(known) for known in await known_states()]
    changes = "; ".join(change for each in checked for change in each.changes)
    mended = f"mended: {changes}" if changes else ""
    left = "; ".join(each.problems for each in checked if each.problems)
    if left:
        return failed("; ".join(filter(None, [left, mended])))
    return Completed(message=mended or "all is as it should be")
