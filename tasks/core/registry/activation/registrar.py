"""What a third party must let us do with registrations, whatever its API is like."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Protocol

from tasks.core.registry.registrations import AnyRegistration


@dataclass(frozen=True, slots=True)
class DesiredRegistration:
    """A registration as it shall be.

    Attributes:
        integration: Whose.
        name: As declared.
        url: What the third party shall call; its path may hold a secret.
        shown_url: The same for people, without what variables hide.
        registration: The declaration, variables filled in.
    """

    integration: str
    name: str
    url: str = field(repr=False)
    shown_url: str
    registration: AnyRegistration

    @property
    def marker(self) -> str:
        """By which we, and people, know it again at the third party, where it takes a text."""
        return f"{self.integration}/{self.name}"

    @property
    def url_digest(self) -> str:
        """What we keep of the URL, to know it again."""
        return url_digest(self.url)


def url_digest(url: str) -> str:
    """What is kept of a URL that may hold a secret: its SHA-256, in hexadecimal."""
    return hashlib.sha256(url.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class FoundRegistration:
    """A registration of ours as it is.

    Attributes:
        remote_id: The third party's id of it.
        differences: What is not as wanted, e.g. ("events",); empty if all is right.
    """

    remote_id: str
    differences: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CreatedRegistration:
    """A registration that was just made.

    Attributes:
        remote_id: The third party's id of it.
        secret: What it will sign with, if it made that itself.
    """

    remote_id: str
    secret: str | None = field(default=None, repr=False)


class Registrar(Protocol):
    """One place at a third party where registrations are; calls block and raise as `ApiClient`.

    Attributes:
        place: What people call it, and the same for the same place, e.g. the collection's URL.
    """

    place: str

    def find(
        self, desired: DesiredRegistration, *, remote_id: str | None, url_digests: Collection[str]
    ) -> list[FoundRegistration]:
        """Those that are this one: the one with the id first, then those that call our URL.

        More than one is found where an attempt made it and died before it could record it.

        Args:
            desired: What it shall be like.
            remote_id: Its id, if that is known.
            url_digests: Of every URL that it may call; where the third party keeps a marker,
                that must be right, too.
        """

    def create(self, desired: DesiredRegistration, secret: str | None) -> CreatedRegistration:
        """Make it.

        Args:
            desired: What it shall be like.
            secret: What the third party shall sign with, if we decide that.
        """

    def update(
        self, desired: DesiredRegistration, found: FoundRegistration, secret: str | None
    ) -> None:
        """Make it as wanted; arguments as for `create`."""

    def delete(self, remote_id: str) -> None:
        """Remove it; that it is gone already is fine."""

    def ping(self, remote_id: str) -> str | None:
        """Let it send a test event, and say what came of it; None if it cannot.

        Raises:
            UpstreamRejectedError: The third party tells that we did not take it.
        """
