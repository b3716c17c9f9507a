"""Activates integrations: registers their endpoints as task runs, and switches deployments."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from uuid import UUID

from prefect import get_run_logger, runtime, task
from prefect.artifacts import acreate_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterTags,
)
from prefect.client.schemas.responses import DeploymentResponse
from prefect.events.actions import ActionTypes, RunDeployment

from blocks.errors import IntegrationError, TransientError, UpstreamBusyError
from blocks.http_api import HttpApi
from tasks.api import is_transient, open_api
from tasks.connections import load_connection
from tasks.core.intake.inbox.storage_errors import storage_errors
from tasks.core.registry.activation.activating import (
    OpenRegistrar,
    Registered,
    Registering,
    failed_registration,
)
from tasks.core.registry.activation.desired import (
    declared_integration,
    declared_integrations,
    desired_registrations,
)
from tasks.core.registry.activation.ledger import (
    ActivationLedger,
    ActivationState,
    RegistrationEntry,
)
from tasks.core.registry.activation.registrar import DesiredRegistration, Registrar
from tasks.core.registry.activation.rest_registrar import RestRegistrar
from tasks.core.registry.activation.salesforce_registrar import SalesforceRegistrar
from tasks.core.registry.registrations import AnyRegistration, RestRegistration
from tasks.core.registry.secrets.store import StoredSecrets
from tasks.core.state.database import open_database
from tasks.core.threads import in_thread

__all__ = [
    "ACTIVATION_TAG",
    "ActivationState",
    "ActiveWork",
    "Registered",
    "RegisteredNames",
    "declared_integration",
    "declared_integrations",
    "desired_registrations",
    "ensure_registration",
    "is_deployed",
    "known_states",
    "mend",
    "problems",
    "register_all",
    "remove_registration",
    "show_registrations",
    "summary",
    "switch",
    "switch_deployments",
    "working_on",
]


ACTIVATION_TAG = "activation"
"""Tag of the deployments that activate and deactivate; they are never switched off."""

_LOOK_AGAIN_S = 5.0
_GIVE_UP_AFTER_S = 900.0


@dataclass(frozen=True, slots=True)
class ActiveWork:
    """What an activation works with while it holds the integration's lease.

    Attributes:
        integration: Its name.
        desired: All desired registrations.
        ledger: The ledger of registrations.
        registering: Registers and removes.
        state: The integration's desired state.
    """

    integration: str
    desired: Sequence[DesiredRegistration]
    ledger: ActivationLedger
    registering: Registering
    state: ActivationState


@dataclass(frozen=True, slots=True)
class Mended:
    """What the check of one integration came to.

    Attributes:
        changes: What was done; empty if all was as it should be.
        problems: What could not be done; may be empty.
    """

    changes: Sequence[str] = ()
    problems: str = ""


@asynccontextmanager
async def working_on(
    integration: str,
    desired: Sequence[DesiredRegistration],
    *,
    is_active: bool | None = None,
    public_url: str | None = None,
) -> AsyncIterator[ActiveWork]:
    """Lease an integration, waiting for another activation to end.

    Args:
        integration: Its name.
        desired: The desired registrations.
        is_active: Its new state; None leaves it unchanged.
        public_url: The gateway's new URL for third parties; None leaves it unchanged.

    Raises:
        IntegrationError: A block needed for activation is missing, another activation does not
            end, or a key for secrets is invalid.
    """
    if is_active:
        await _require_blocks(desired)  # active integrations are checked every day
    engine = await in_thread(open_database)
    try:
        ledger = ActivationLedger(engine, run_id=str(runtime.flow_run.id))
        state = await _begun(ledger, integration, is_active=is_active, public_url=public_url)
        try:
            registrations = [each.registration for each in desired]
            registrations += [entry.registration for entry in ledger.entries(integration)]
            apis = await _load_apis(registrations)
            secrets = StoredSecrets.from_environment(engine)
            registering = Registering(ledger, secrets, _opening(apis))
            yield ActiveWork(integration, desired, ledger, registering, state)
        finally:
            await in_thread(ledger.end, integration)
    finally:
        engine.dispose()


async def register_all(work: ActiveWork) -> list[Registered]:
    """Register what is desired and remove our other registrations; continue after failures.

    Args:
        work: From `working_on`.

    Returns:
        One result per registration, with the reason if it failed.
    """
    done = []
    for each in work.desired:
        try:
            done.append(await ensure_registration(work, each))
        except IntegrationError as error:
            done.append(failed_registration(each, error.system, error))
    obsolete = work.registering.obsolete
    for entry in await in_thread(obsolete, work.integration, work.desired):
        try:
            done.append(await remove_registration(work, entry))
        except IntegrationError as error:
            done.append(failed_registration(entry.desired, entry.place, error))
    return done


async def mend(known: ActivationState) -> Mended:
    """Let an integration be what it shall be: its registrations, and at last its deployments.

    Args:
        known: What it shall be, as it was read; if somebody decides otherwise meanwhile, that
            activation sees to it.
    """
    try:
        declared = declared_integrations().get(known.integration)
        on = declared is not None and known.is_active
        desired = []
        if declared is not None and on:
            desired = desired_registrations(declared, known.public_url or None, os.environ)
        async with working_on(known.integration, desired) as work:
            if work.state.is_active != known.is_active:
                return Mended()
            done = await register_all(work)
            is_left = work.state.is_switched_on != on and not (on and problems(done))
            if is_left:
                await switch(work, on=on)
    except IntegrationError as error:
        return Mended(problems=str(error))
    if done:
        await show_registrations(known.integration, done)
    changes = [
        f"{each.integration}/{each.name} {each.became}"
        for each in done
        if each.became not in ("kept", "failed")
    ]
    if is_left:
        changes.append(f"{known.integration} switched {'on' if on else 'off'}")
    return Mended(changes, problems(done))


def problems(done: Sequence[Registered]) -> str:
    """Which registrations failed and why; empty if none did."""
    return "; ".join(f"{each.name}: {each.told}" for each in done if each.became == "failed")


def summary(done: Sequence[Registered]) -> str:
    """How many registrations became what, e.g. "1 created, 2 kept"."""
    kinds = sorted({each.became for each in done})
    counts = [f"{sum(each.became == kind for each in done)} {kind}" for kind in kinds]
    return ", ".join(counts) or "nothing to register"


@task(
    task_run_name="register {desired.marker}",
    retries=3,
    retry_delay_seconds=[2, 10, 30],
    retry_condition_fn=is_transient,
    cache_policy=NO_CACHE,
    persist_result=False,
)
async def ensure_registration(work: ActiveWork, desired: DesiredRegistration) -> Registered:
    """Bring one registration to its desired state.

    Raises:
        IntegrationError: As in `Registering.ensure`.
    """
    return await in_thread(work.registering.ensure, desired)


@task(
    task_run_name="remove {entry.name}",
    retries=3,
    retry_delay_seconds=[2, 10, 30],
    retry_condition_fn=is_transient,
    cache_policy=NO_CACHE,
    persist_result=False,
)
async def remove_registration(work: ActiveWork, entry: RegistrationEntry) -> Registered:
    """Remove one registration.

    Raises:
        IntegrationError: As in `Registering.remove`.
    """
    return await in_thread(work.registering.remove, entry)


async def show_registrations(integration: str, done: Sequence[Registered]) -> None:
    """List what is registered where in an artifact."""
    await acreate_table_artifact(
        key=f"registrations-{integration.replace('_', '-')}",
        description=f"What {integration} has registered at third parties.",
        table=[
            {
                "Registration": each.name,
                "Became": each.became,
                "Events": ", ".join(each.events),
                "Id": each.remote_id or "",
                "Told": each.told,
                "Calls": each.calls,
                "At": each.place,
            }
            for each in done
        ],
    )


class RegisteredNames:
    """Finds the registration that an event comes from by the third party's id.

    Args:
        integration: Its name.
    """

    def __init__(self, integration: str) -> None:
        self._integration = integration
        self._names: dict[str, str] = {}

    def name_of(self, remote_id: str, *, record: str) -> str:
        """Return the registration's name; read the ledger again if it is unknown.

        Args:
            remote_id: The third party's id; of Salesforce's ids only the first 15 characters
                count.
            record: The record concerned, for errors.

        Raises:
            TransientError: Nothing is registered with that id, or not yet.
        """
        key = remote_id[:15]
        if key not in self._names:
            self._names = self._read()
        if key not in self._names:
            raise TransientError(
                f"none of our registrations has the id {remote_id[:40]}: an activation is about to "
                "record it, or somebody else registered our URL; look at the artifact "
                f"registrations-{self._integration.replace('_', '-')}",
                system="activation",
                operation="look up registration",
                record=record,
            )
        return self._names[key]

    def _read(self) -> dict[str, str]:
        with storage_errors("read registrations"):
            engine = open_database()
            try:
                entries = ActivationLedger(engine, run_id="reader").entries(self._integration)
            finally:
                engine.dispose()
        return {each.remote_id[:15]: each.name for each in entries if each.remote_id is not None}


async def known_states() -> list[ActivationState]:
    """Return every integration that was ever activated."""

    def read() -> list[ActivationState]:
        engine = open_database()
        try:
            return ActivationLedger(engine, run_id="reader").states()
        finally:
            engine.dispose()

    return await in_thread(read)


async def switch(work: ActiveWork, *, on: bool) -> list[str]:
    """Switch an integration's deployments on or off, and record it.

    Args:
        work: From `working_on`.
        on: As for `switch_deployments`.

    Returns:
        Names of the deployments.
    """
    switched = await switch_deployments(work.integration, on=on)
    await in_thread(work.ledger.record_switched, work.integration, on=on)
    return switched


@task(task_run_name="switch {integration}", cache_policy=NO_CACHE, persist_result=False)
async def switch_deployments(integration: str, *, on: bool) -> list[str]:
    """Switch an integration's schedules, and every automation that runs it, on or off.

    Args:
        integration: Its name; its deployments have it as their tag, with dashes.
        on: Whether to switch them on.

    Returns:
        Names of the deployments.
    """
    async with get_client() as client:
        switched = await _switchable(client, integration)
        for deployment in switched:
            await _switch(client, deployment, on=on)
    return sorted(each.name for each in switched)


async def is_deployed(integration: str) -> bool:
    """Return whether the server has a deployment of an integration that can be switched.

    Args:
        integration: As for `switch_deployments`.
    """
    async with get_client() as client:
        return bool(await _switchable(client, integration))


async def _switchable(client: PrefectClient, integration: str) -> list[DeploymentResponse]:
    found = await client.read_deployments(
        deployment_filter=DeploymentFilter(
            tags=DeploymentFilterTags(all_=[integration.replace("_", "-")])
        )
    )
    return [each for each in found if ACTIVATION_TAG not in each.tags]


async def _switch(client: PrefectClient, deployment: DeploymentResponse, *, on: bool) -> None:
    await (client.resume_deployment if on else client.pause_deployment)(deployment.id)
    # A pause stops schedules only: triggers are automations of their own. The server does not say
    # which automation belongs to a deployment, only what each does.
    related = await client.read_resource_related_automations(f"prefect.deployment.{deployment.id}")
    for automation in related:
        if any(_starts(action, deployment.id) for action in automation.actions):
            await (client.resume_automation if on else client.pause_automation)(automation.id)


def _starts(action: ActionTypes, deployment_id: UUID) -> bool:
    return isinstance(action, RunDeployment) and action.deployment_id == deployment_id


async def _begun(
    ledger: ActivationLedger, integration: str, *, is_active: bool | None, public_url: str | None
) -> ActivationState:
    waited_s = 0.0
    while True:
        try:
            return await in_thread(
                ledger.begin, integration, is_active=is_active, public_url=public_url
            )
        except UpstreamBusyError as exc:
            if waited_s >= _GIVE_UP_AFTER_S:
                raise
            if waited_s == 0:
                get_run_logger().info("waiting: %s", exc)
            await asyncio.sleep(_LOOK_AGAIN_S)
            waited_s += _LOOK_AGAIN_S


async def _require_blocks(desired: Iterable[DesiredRegistration]) -> None:
    for slug in sorted({each.registration.connection for each in desired}):
        await load_connection(slug, HttpApi)


async def _load_apis(
    registrations: Iterable[AnyRegistration],
) -> dict[str, HttpApi | IntegrationError]:
    """Return the blocks, or the error for each missing one, so that the others can be used."""
    apis: dict[str, HttpApi | IntegrationError] = {}
    for slug in sorted({each.connection for each in registrations}):
        try:
            apis[slug] = await load_connection(slug, HttpApi)
        except IntegrationError as error:
            apis[slug] = error
    return apis


def _opening(apis: dict[str, HttpApi | IntegrationError]) -> OpenRegistrar:
    @contextmanager
    def open_registrar(registration: AnyRegistration) -> Iterator[Registrar]:
        block = apis[registration.connection]
        if isinstance(block, IntegrationError):
            raise block
        with open_api(block) as api:
            if isinstance(registration, RestRegistration):
                yield RestRegistrar(api, registration, base_url=block.base_url)
            else:
                yield SalesforceRegistrar(api, registration, base_url=block.base_url)

    return open_registrar
