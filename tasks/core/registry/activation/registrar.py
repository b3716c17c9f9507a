"""The protocol for managing registrations at any third party."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Protocol

from tasks.core.registry.registrations import AnyRegistration


@dataclass(frozen=True, slots=True)
class DesiredRegistration:
    """A desired registration.

    Attributes:
        integration: The integration's name.
        name: As declared.
        url: URL that the third party should call; its path may hold a secret.
        shown_url: The same for people, with its variables unfilled.
        registration: The declaration, with variables filled in.
    """

    integration: str
    name: str
    url: str = field(repr=False)
    shown_url: str
    registration: AnyRegistration

    @property
    def marker(self) -> str:
        """The text that identifies it at the third party, if that has a field for it."""
        return f"{self.integration}/{self.name}"

    @property
    def url_digest(self) -> str:
        """The digest that we store to recognise the URL."""
        return url_digest(self.url)


def url_digest(url: str) -> str:
    """Return the SHA-256 of a URL, in hexadecimal: stored instead, as it may hold a secret."""
    return hashlib.sha256(url.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class FoundRegistration:
    """One of our registrations as found at the third party.

    Attributes:
        remote_id: The third party's id.
        differences: What differs from the desired state, e.g. ("events",); empty if nothing.
    """

    remote_id: str
    differences: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CreatedRegistration:
    """A registration that was just created.

    Attributes:
        remote_id: The third party's id.
        secret: The secret it signs with, if the third party made it.
    """

    remote_id: str
    secret: str | None = field(default=None, repr=False)


class Registrar(Protocol):
    """A place for registrations at a third party; calls block and raise as `ApiClient`.

    Attributes:
        place: The place's readable, stable id, e.g. the collection's URL.
    """

    place: str

    def find(
        self, desired: DesiredRegistration, *, remote_id: str | None, url_digests: Collection[str]
    ) -> list[FoundRegistration]:
        """Return all copies of a registration: the one with the id first, then by our URL.

        There are several if an attempt created one and died before recording it.

        Args:
            desired: The desired registration.
            remote_id: Its id, if known.
            url_digests: Digests of every URL that it may call; if the third party stores a
                marker, that must match too.
        """

    def create(self, desired: DesiredRegistration, secret: str | None) -> CreatedRegistration:
        """Create it.

        Args:
            desired: The desired registration.
            secret: The secret to sign with, if we choose it.
        """

    def update(
        self, desired: DesiredRegistration, found: FoundRegistration, secret: str | None
    ) -> None:
        """Update it to the desired state; arguments as for `create`."""

    def delete(self, remote_id: str) -> None:
        """Remove it; do nothing if it is already gone."""

    def ping(self, remote_id: str) -> str | None:
        """Have it send a test event, and return the result; None if it cannot send one.

        Raises:
            UpstreamRejectedError: The third party reports that we did not accept it.
        """
