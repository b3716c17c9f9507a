"""The command line of activation, as far as it needs no Prefect."""

from __future__ import annotations

import pytest
from cryptography.fernet import Fernet

from deployments.activate import main
from tasks.core.registry.secrets.store import StoredSecrets


def test_a_key_can_be_made(capsys):
    """It is one that secrets can be stored with."""
    assert main(["--make-key"]) == 0
    Fernet(capsys.readouterr().out.strip())


def test_secrets_can_be_encrypted_anew(state_database, state_database_url, monkeypatch, capsys):
    """With the new key before the old one, everything is readable with the new one alone."""
    old, new = (Fernet.generate_key().decode() for _ in range(2))
    StoredSecrets(state_database, [old]).put("a", "x")
    monkeypatch.setenv("INTEGRATIONS_DATABASE_URL", state_database_url)
    monkeypatch.setenv("INTEGRATIONS_SECRETS_KEY", f"{new}, {old}")
    assert main(["--reencrypt"]) == 0
    assert capsys.readouterr().out.startswith("1 versions")
    assert StoredSecrets(state_database, [new]).newest("a").value == "x"


def test_a_wrong_key_is_told(state_database, state_database_url, monkeypatch, capsys):
    """In one line, without a traceback."""
    StoredSecrets(state_database, [Fernet.generate_key().decode()]).put("a", "x")
    monkeypatch.setenv("INTEGRATIONS_DATABASE_URL", state_database_url)
    monkeypatch.setenv("INTEGRATIONS_SECRETS_KEY", Fernet.generate_key().decode())
    assert main(["--reencrypt"]) == 1
    assert "no key of INTEGRATIONS_SECRETS_KEY decrypts it" in capsys.readouterr().err


def test_something_must_be_named():
    """Nothing is activated by accident."""
    with pytest.raises(SystemExit):
        main([])
