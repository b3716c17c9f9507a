"""Makes the registrations at third parties match the declarations, whatever was there before.

Each step can be repeated, and a process may die after any: intentions are recorded first, secrets
are stored before anyone signs with them, and what is found at the third party takes precedence
over what the ledger says.
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
"""Opens the registrar for a declared registration, and closes its connections at the end."""

_SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class Registered:
    """The result of one registration.

    Attributes:
        integration: The integration's name.
        name: As declared.
        place: Where it is registered.
        calls: The URL that is called, with its variables unfilled.
        events: The event types; empty where the third party has none.
        became: What was done.
        told: The result of the ping, what differed, or what went wrong.
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
    """Creates, updates and removes registrations, one at a time.

    Args:
        ledger: What was registered so far; `begin` has been called for the integration.
        secrets: The secrets that senders sign with.
        open_registrar: Opens the registrars of third parties.
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
        """Return our registrations that are no longer desired, or no longer there.

        Args:
            integration: The integration's name.
            desired: All desired registrations.
        """
        kept = set()
        unknown = set()
        for each in desired:
            try:
                with self._open(each.registration) as registrar:
                    kept.add((each.name, registrar.place))
            except IntegrationError:  # reported by `ensure`; until then nothing is removed
                unknown.add(each.name)
        return [
            entry
            for entry in self._ledger.entries(integration)
            if (entry.name, entry.place) not in kept and entry.name not in unknown
        ]

    def ensure(self, desired: DesiredRegistration) -> Registered:
        """Register it as desired, exactly once.

        Raises:
            IntegrationError: It failed; the ledger records the problem.
        """
        with self._open(desired.registration) as registrar:
            entry = self._ledger.intend(desired, registrar.place)
            try:
                return self._ensured(registrar, desired, entry)
            except IntegrationError as exc:
                self._ledger.record_problem(entry, str(exc))
                raise

    def remove(self, entry: RegistrationEntry) -> Registered:
        """Remove it at the third party.

        Raises:
            IntegrationError: It failed; the ledger records the problem.
        """
        with self._open(entry.registration) as registrar:
            try:
                if registrar.place != entry.place:
                    raise MisconfiguredError(
                        f"it was registered at {entry.place}, but the block now points to "
                        f"{registrar.place}; remove it there by hand, or point the block back",
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
            # It returned its secret to a process that died before storing it.
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
    """Return the result of a registration that failed."""
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
    # in the form of Standard Webhooks, which all other senders accept as plain text
    return "whsec_" + base64.b64encode(random.token_bytes(_SECRET_BYTES)).decode()
