"""Databases of their own on the PostgreSQL of this machine."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

POSTGRESQL = ("127.0.0.1", 5432)


def postgresql_url(name: str, port: int = POSTGRESQL[1]) -> str:
    """The URL of a database, by the server itself or by a proxy on that port."""
    return f"postgresql://postgres@127.0.0.1:{port}/{name}"


@contextmanager
def new_database() -> Iterator[str]:
    """The name of an empty database, which is dropped in the end."""
    name = f"bench_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(postgresql_url("postgres"), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
        try:
            yield name
        finally:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
