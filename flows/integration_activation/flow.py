"""Activate an integration, deactivate it, and mend what third parties have forgotten."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from prefect import State
from prefect.states import Completed

from blocks.errors import IntegrationError
from tasks.activation import (
    ActivationState,
    Registered,
    declared_integration,
    declared_integrations,
    desired_registrations,
    known_states,
    register_all,
    show_registrations,
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
    switched: list[str] = []
    try:
        declared = declared_integration(integration)
        desired = desired_registrations(declared, public_url, os.environ)
        async with working_on(
            declared.integration, desired, is_active=True, public_url=public_url or ""
        ) as work:
            done = await register_all(work, declared.integration, desired)
            if not _problems(done):
                switched = await switch(work, declared.integration, on=True)
    except IntegrationError as error:
        return failed(f"not activated: {error}")
    await show_registrations(declared.integration, done)
    if problems := _problems(done):
        return failed(f"not switched on, because not all is registered: {problems}")
    return Completed(message=f"{_counted(done)}; switched on: {', '.join(switched) or 'nothing'}")


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
            done = await register_all(work, name, [])
            switched = await switch(work, name, on=False)
    except IntegrationError as error:
        return failed(str(error))
    await show_registrations(name, done)
    if problems := _problems(done):
        return failed(f"switched off, but not all is removed: {problems}")
    return Completed(message=f"{_counted(done)}; switched off: {', '.join(switched) or 'nothing'}")


@flow(name="check-registrations")
async def check_registrations() -> State[Any]:
    """Look whether every registration is there as it should be, and mend what is not.

    Third parties remove or disable registrations, after failed deliveries for instance. What an
    activation or deactivation left undone is done, too: at last its deployments are switched. What
    somebody has paused or resumed by hand meanwhile stays so.
    """
    mended: list[str] = []
    problems: list[str] = []
    for known in await known_states():
        try:
            done, switched = await _finished(known)
        except IntegrationError as error:
            problems.append(str(error))
            continue
        if done:
            await show_registrations(known.integration, done)
        mended += [
            f"{each.integration}/{each.name} {each.became}"
            for each in done
            if each.became not in ("kept", "failed")
        ]
        mended += [f"{known.integration} switched {switched}"] if switched else []
        problems += [_problems(done)] if _problems(done) else []
    told = "; ".join(mended)
    if problems:
        return failed("; ".join([*problems, *([f"mended: {told}"] if told else [])]))
    return Completed(message=f"mended: {told}" if told else "all is as it should be")


async def _finished(known: ActivationState) -> tuple[list[Registered], str]:
    """Let an integration be what it shall be.

    Returns:
        What became of its registrations, and "on" or "off" if its deployments were switched.
    """
    declared = declared_integrations().get(known.integration)
    desired = []
    if declared is not None and known.is_active:
        desired = desired_registrations(declared, known.public_url or None, os.environ)
    async with working_on(known.integration, desired) as work:
        if work.state.is_active != known.is_active:
            return [], ""  # somebody decided otherwise meanwhile, and sees to it
        done = await register_all(work, known.integration, desired)
        on = declared is not None and known.is_active
        if work.state.is_switched_on == on or (on and _problems(done)):
            return done, ""
        await switch(work, known.integration, on=on)
        return done, "on" if on else "off"


def _problems(done: Sequence[Registered]) -> str:
    return "; ".join(f"{each.name}: {each.told}" for each in done if each.became == "failed")


def _counted(done: Sequence[Registered]) -> str:
    kinds = sorted({each.became for each in done})
    counts = [f"{sum(each.became == kind for each in done)} {kind}" for kind in kinds]
    return ", ".join(counts) or "nothing to register"
