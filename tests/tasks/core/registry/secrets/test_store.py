"""Stored secrets: versions, keys, and what a reader of the database sees."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import text

from blocks.errors import MisconfiguredError
from tasks.core.registry.secrets.store import StoredSecrets

OLD, NEW = (Fernet.generate_key().decode() for _ in range(2))


@pytest.fixture
def secrets(state_database):
    """An empty store."""
    return StoredSecrets(state_database, [OLD])


def test_the_newest_two_versions_are_accepted(secrets):
    """A third one retires the first; the same value again is no new version."""
    assert [secrets.put("a", value).version for value in ("x", "x", "y", "z")] == [1, 1, 2, 3]
    secrets.put("b", "other")
    assert secrets.accepted(["a"]) == ["z", "y"]
    assert secrets.newest("a").value == "z"
    assert secrets.versions() == {"a": 3, "b": 1}
    assert secrets.accepted(["unknown"]) == []


def test_all_who_ensure_get_the_same(secrets):
    """However many ask at once, one is made."""
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(lambda n: secrets.ensure("a", lambda: f"s{n}").value, range(8)))
    assert len(set(made)) == 1
    assert secrets.accepted(["a"]) == [made[0]]


def test_a_key_is_changed_without_losing_anything(state_database, secrets):
    """New before old, reencrypt, then without the old one."""
    secrets.put("a", "x")
    both = StoredSecrets(state_database, [NEW, OLD])
    assert both.newest("a").value == "x"
    assert both.reencrypt() == 1
    assert StoredSecrets(state_database, [NEW]).newest("a").value == "x"
    with pytest.raises(MisconfiguredError, match="no key of INTEGRATIONS_SECRETS_KEY"):
        StoredSecrets(state_database, [OLD]).newest("a")


@pytest.mark.parametrize(
    ("keys", "says"),
    [([], "set INTEGRATIONS_SECRETS_KEY"), (["short"], "not 32 bytes in URL-safe base64")],
)
def test_what_is_wrong_with_the_keys_is_said(state_database, keys, says):
    """The remedy is named, and no key."""
    with pytest.raises(MisconfiguredError, match=says) as caught:
        StoredSecrets(state_database, keys).put("a", "x")
    assert "--make-key" in str(caught.value)
    assert "short" not in str(caught.value)


def test_versions_need_no_key(state_database, secrets):
    """The gateway sees that something changed before it decrypts anything."""
    secrets.put("a", "x")
    assert StoredSecrets(state_database, []).versions() == {"a": 1}


def test_a_secret_cannot_pass_for_another(state_database, secrets):
    """Whoever can write the database cannot put one secret in another's place."""
    secrets.put("a", "x")
    with state_database.begin() as connection:
        connection.execute(text("UPDATE stored_secrets SET name = 'b'"))
    with pytest.raises(MisconfiguredError, match="stored under another name"):
        secrets.newest("b")


def test_neither_database_nor_repr_shows_a_secret(state_database, secrets):
    """In the database it is encrypted, in a log it is left out."""
    stored = secrets.put("a", "whsec_visible")
    with state_database.connect() as connection:
        rows = connection.execute(text("SELECT * FROM stored_secrets")).all()
    assert "visible" not in repr(rows) + repr(stored) + repr(secrets)
