"""Makes what is registered at third parties exactly what is declared, whatever was there before.

Each step may be repeated, and may be the last one that its process did: what is intended is
written down first, secrets are stored before anyone signs with them, and what is found at the
third party counts for more than what is remembered of it.
"""

from __future__ import annotations

import base64
import secrets as random
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

from blocks.errors import IntegrationError, MisconfiguredError
from tasks.core.connectors.http.errors import OutcomeUnknownError
from tasks.core.registry.activation.ledger import ActivationLedger, RegistrationEntry
from tasks.core.registry.activation.registrar import (
    DesiredRegistration,
    FoundRegistration,
    Registrar,
)
from tasks.core.registry.registrations import AnyRegistration, RegistrationSecret
from tasks.core.registry.secrets.store import StoredSecret, StoredSecrets

OpenRegistrar = Callable[[AnyRegistration], AbstractContextManager[Registrar]]
"""Gives the registrar for a declared registration, and closes its connections at the end."""

_SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class Registered:
    """What became of one registration.

    Attributes:
        integration: Whose.
        name: As declared.
        place: Where it is registered.
        calls: The URL that is called, without what variables hide.
        events: What is told; empty where the third party does not ask.
        became: What was done.
        told: What came of the ping, what differed, or what went wrong.
        remote_id: The third party's id.
    """

    integration: str
    name: str
    place: str
    calls: str
    events: tuple[str, ...]
    became: Literal["created", "changed", "kept", "removed", "failed"]
    told: str = ""
    remote_id: str | None = None


class Registering:
    """Creates, changes, keeps and removes registrations, one at a time.

    Args:
        ledger: What was registered so far; `begin` has been called for the integration.
        secrets: What senders sign with.
        open_registrar: Leads to the third parties.
    """

    def __init__(
        self, ledger: ActivationLedger, secrets: StoredSecrets, open_registrar: OpenRegistrar
    ) -> None:
        self._ledger = ledger
        self._secrets = secrets
        self._open = open_registrar

    def obsolete(
        self, integration: str, desired: Sequence[DesiredRegistration]
    ) -> list[RegistrationEntry]:
        """What we have registered and is not wanted any more, or not there any more.

        Args:
            integration: Whose.
            desired: All that is wanted.
        """
        kept = set()
        unknown = set()
        for each in desired:
            try:
                with self._open(each.registration) as registrar:
                    kept.add((each.name, registrar.place))
            except IntegrationError:  # told where it is registered; until then nothing is removed
                unknown.add(each.name)
        return [
            entry
            for entry in self._ledger.entries(integration)
            if (entry.name, entry.place) not in kept and entry.name not in unknown
        ]

    def ensure(self, desired: DesiredRegistration) -> Registered:
        """Let it be registered as wanted, once.

        Raises:
            IntegrationError: It could not be; the ledger says so, too.
        """
        with self._open(desired.registration) as registrar:
            entry = self._ledger.intend(desired, registrar.place)
            try:
                return self._ensured(registrar, desired, entry)
            except IntegrationError as exc:
                self._ledger.record_problem(entry, str(exc))
                raise

    def remove(self, entry: RegistrationEntry) -> Registered:
        """Take it away where it is registered.

        Raises:
            IntegrationError: It could not be; the ledger says so, too.
        """
        with self._open(entry.registration) as registrar:
            try:
                if registrar.place != entry.place:
                    raise MisconfiguredError(
                        f"it was registered at {entry.place}, and the block leads to "
                        f"{registrar.place} now; remove it there by hand, or lead the block back",
                        system="activation",
                        operation="remove registration",
                        record=entry.desired.marker,
                    )
                for found in self._ours(registrar, entry.desired, entry):
                    registrar.delete(found.remote_id)
            except IntegrationError as exc:
                self._ledger.record_problem(entry, str(exc))
                raise
        self._ledger.forget(entry)
        return _registered(entry.desired, entry.place, "removed", remote_id=entry.remote_id)

    def _ensured(
        self, registrar: Registrar, desired: DesiredRegistration, entry: RegistrationEntry
    ) -> Registered:
        declared = getattr(desired.registration, "secret", None)
        secret = self._secret(declared)
        ours = self._ours(registrar, desired, entry)
        found = ours[0] if ours else None
        for repeated in ours[1:]:
            registrar.delete(repeated.remote_id)
        is_told_once = declared is not None and declared.made_by == "them"
        if (
            found is not None
            and is_told_once
            and (secret is None or entry.remote_id != found.remote_id)
        ):
            # It told its secret to somebody who died before he could store it.
            registrar.delete(found.remote_id)
            found = None
        sent = secret if declared is not None and declared.made_by == "us" else None
        told = ""
        if found is None:
            remote_id, secret = self._created(registrar, desired, entry, declared, sent, secret)
            became: Literal["created", "changed", "kept"] = "created"
        else:
            remote_id = found.remote_id
            differences = list(found.differences)
            if sent is not None and entry.secret_digest != sent.digest:
                differences.append("secret")
            became = "changed" if differences else "kept"
            if differences:
                registrar.update(desired, found, sent.value if sent else None)
                told = f"differed: {', '.join(differences)}"
        self._ledger.record(entry, remote_id, secret_digest=sent.digest if sent else None)
        heard = registrar.ping(remote_id)
        return _registered(
            desired,
            registrar.place,
            became,
            told="; ".join(text for text in (told, heard) if text),
            remote_id=remote_id,
        )

    def _created(
        self,
        registrar: Registrar,
        desired: DesiredRegistration,
        entry: RegistrationEntry,
        declared: RegistrationSecret | None,
        sent: StoredSecret | None,
        secret: StoredSecret | None,
    ) -> tuple[str, StoredSecret | None]:
        try:
            created = registrar.create(desired, sent.value if sent else None)
        except OutcomeUnknownError:
            found = self._ours(registrar, desired, entry)
            if not found:
                raise
            if declared is None or declared.made_by == "us":
                return found[0].remote_id, secret
            for each in found:
                registrar.delete(each.remote_id)
            created = registrar.create(desired, None)
        if declared is None or declared.made_by == "us":
            return created.remote_id, secret
        if created.secret is None:
            registrar.delete(created.remote_id)
            raise MisconfiguredError(
                "it returned no secret; correct secret_field in the declaration, or let us make "
                "the secret (made_by: us)",
                system=registrar.place,
                operation="register",
                record=desired.marker,
            )
        return created.remote_id, self._secrets.put(declared.name, created.secret)

    def _secret(self, declared: RegistrationSecret | None) -> StoredSecret | None:
        if declared is None:
            return None
        if declared.made_by == "them":
            return self._secrets.newest(declared.name)
        return self._secrets.ensure(declared.name, _new_secret)

    def _ours(
        self, registrar: Registrar, desired: DesiredRegistration, entry: RegistrationEntry
    ) -> list[FoundRegistration]:
        # Two registrations of ours may call the same URL: each has its own entry.
        recorded = self._ledger.registered_at(registrar.place)
        return [
            found
            for found in registrar.find(
                desired, remote_id=entry.remote_id, url_digests=entry.url_digests
            )
            if recorded.get(found.remote_id, entry.id) == entry.id
        ]


def failed_registration(
    desired: DesiredRegistration, place: str, error: IntegrationError
) -> Registered:
    """What became of a registration that failed."""
    return _registered(desired, place, "failed", told=str(error))


def _registered(
    desired: DesiredRegistration,
    place: str,
    became: Literal["created", "changed", "kept", "removed", "failed"],
    *,
    told: str = "",
    remote_id: str | None = None,
) -> Registered:
    return Registered(
        integration=desired.integration,
        name=desired.name,
        place=place,
        calls=desired.shown_url,
        events=tuple(desired.registration.events),
        became=became,
        told=told,
        remote_id=remote_id,
    )


def _new_secret() -> str:
    # in the form of Standard Webhooks, which every other sender takes as it is
    return "whsec_" + base64.b64encode(random.token_bytes(_SECRET_BYTES)).decode()
