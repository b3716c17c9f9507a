"""Stores secrets encrypted, the newest two versions of each.

`INTEGRATIONS_SECRETS_KEY` holds the key, or several separated by commas: the first encrypts, all
decrypt. To rotate the key, put the new one before the old one everywhere, call `reencrypt`, and
remove the old one.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

import orjson
from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from sqlalchemy import Connection, Engine, delete, func, insert, select, text, update

from blocks.errors import MisconfiguredError
from tasks.core.registry.secrets.tables import SECRETS
from tasks.core.state.database import reading, writing

KEY_VARIABLE = "INTEGRATIONS_SECRETS_KEY"
_ACCEPTED_VERSIONS = 2


@dataclass(frozen=True, slots=True)
class StoredSecret:
    """One version of a secret.

    Attributes:
        version: Counted from 1; a greater one is newer.
        value: The secret itself.
    """

    version: int
    value: str = field(repr=False)

    @property
    def digest(self) -> str:
        """Its SHA-256, in hexadecimal, to recognise it; only for secrets nobody can guess."""
        return hashlib.sha256(self.value.encode()).hexdigest()


class StoredSecrets:
    """The secrets in a state database.

    Args:
        engine: The state database.
        keys: Fernet keys; the first encrypts. Without any, only versions can be read.
        clock: Returns aware UTC instants.
    """

    def __init__(
        self,
        engine: Engine,
        keys: Sequence[str],
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._engine = engine
        self._fernet = _fernet(keys)
        self._clock = clock

    @classmethod
    def from_environment(
        cls, engine: Engine, environment: Mapping[str, str] = os.environ
    ) -> StoredSecrets:
        """Return a store with the keys of `INTEGRATIONS_SECRETS_KEY`.

        Raises:
            MisconfiguredError: One of them is not a key.
        """
        given = environment.get(KEY_VARIABLE, "")
        return cls(engine, [key.strip() for key in given.split(",") if key.strip()])

    def put(self, name: str, value: str) -> StoredSecret:
        """Store a secret as the newest version; storing the same again has no effect.

        Raises:
            MisconfiguredError: There is no key, or the wrong one.
        """
        with self._changing(name) as connection:
            newest = self._newest(connection, name)
            if newest is not None and newest.value == value:
                return newest
            return self._add(connection, name, value, newest)

    def ensure(self, name: str, make: Callable[[], str]) -> StoredSecret:
        """Return the newest version; create and store it once if there is none.

        Raises:
            MisconfiguredError: As `put`.
        """
        with self._changing(name) as connection:
            return self._newest(connection, name) or self._add(connection, name, make(), None)

    def newest(self, name: str) -> StoredSecret | None:
        """Return the newest version, if there is one.

        Raises:
            MisconfiguredError: As `put`.
        """
        with reading(self._engine) as connection:
            return self._newest(connection, name)

    def accepted(self, names: Sequence[str]) -> list[str]:
        """Return the values that senders may use now, of several secrets, newest first.

        Raises:
            MisconfiguredError: As `put`.
        """
        query = select(SECRETS).where(SECRETS.c.name.in_(names)).order_by(SECRETS.c.version.desc())
        with reading(self._engine) as connection:
            return [self._decrypted(row.name, row.ciphertext) for row in connection.execute(query)]

    def versions(self) -> dict[str, int]:
        """Return name to newest version: without keys, as a cheap check for changes."""
        query = select(SECRETS.c.name, func.max(SECRETS.c.version)).group_by(SECRETS.c.name)
        with reading(self._engine) as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    def reencrypt(self) -> int:
        """Encrypt everything with the first key; return the number of versions.

        Raises:
            MisconfiguredError: As `put`.
        """
        with writing(self._engine) as connection:
            rows = connection.execute(select(SECRETS)).all()
            for row in rows:
                value = self._decrypted(row.name, row.ciphertext)
                connection.execute(
                    update(SECRETS)
                    .where(SECRETS.c.name == row.name, SECRETS.c.version == row.version)
                    .values(ciphertext=self._encrypted(row.name, value))
                )
        return len(rows)

    @contextmanager
    def _changing(self, name: str) -> Iterator[Connection]:
        with writing(self._engine) as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(
                    text("SELECT pg_advisory_xact_lock(4173010, hashtext(:name))"), {"name": name}
                )
            yield connection

    def _newest(self, connection: Connection, name: str) -> StoredSecret | None:
        query = (
            select(SECRETS)
            .where(SECRETS.c.name == name)
            .order_by(SECRETS.c.version.desc())
            .limit(1)
        )
        row = connection.execute(query).one_or_none()
        if row is None:
            return None
        return StoredSecret(row.version, self._decrypted(name, row.ciphertext))

    def _add(
        self, connection: Connection, name: str, value: str, newest: StoredSecret | None
    ) -> StoredSecret:
        added = StoredSecret(1 if newest is None else newest.version + 1, value)
        connection.execute(
            insert(SECRETS).values(
                name=name,
                version=added.version,
                ciphertext=self._encrypted(name, value),
                stored_at=self._clock(),
            )
        )
        connection.execute(
            delete(SECRETS).where(
                SECRETS.c.name == name, SECRETS.c.version <= added.version - _ACCEPTED_VERSIONS
            )
        )
        return added

    def _encrypted(self, name: str, value: str) -> str:
        return self._keyed(name).encrypt(orjson.dumps({"name": name, "value": value})).decode()

    def _decrypted(self, name: str, ciphertext: str) -> str:
        try:
            document = orjson.loads(self._keyed(name).decrypt(ciphertext.encode()))
        except InvalidToken:
            raise _misconfigured(
                f"no key of {KEY_VARIABLE} decrypts it; put back the key it was stored with, "
                "or activate the integration again after deleting it",
                name,
            ) from None
        if document["name"] != name:
            raise _misconfigured("it was stored under another name; activate again", name)
        value: str = document["value"]
        return value

    def _keyed(self, name: str) -> MultiFernet:
        if self._fernet is None:
            raise _misconfigured(
                f"set {KEY_VARIABLE}, the same for workers and gateway; make one with "
                "python -m deployments.activate --make-key",
                name,
            )
        return self._fernet


def _fernet(keys: Sequence[str]) -> MultiFernet | None:
    try:
        return MultiFernet([Fernet(key) for key in keys]) if keys else None
    except ValueError:
        raise _misconfigured(
            f"{KEY_VARIABLE} holds something that is not 32 bytes in URL-safe base64; make a key "
            "with python -m deployments.activate --make-key",
            None,
        ) from None  # the original may quote the key


def _misconfigured(message: str, name: str | None) -> MisconfiguredError:
    return MisconfiguredError(message, system="stored secrets", operation="use secret", record=name)
