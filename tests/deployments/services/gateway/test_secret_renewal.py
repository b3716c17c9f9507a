"""Secrets that activation stores reach a gateway that is serving."""

from __future__ import annotations

import pytest
from cryptography.fernet import Fernet

from deployments.services.gateway.secret_renewal import Renewal, StoredSecretsWatch
from tasks.core.registry.declarations import read_declarations
from tasks.core.registry.secrets.store import StoredSecrets

KEY = Fernet.generate_key().decode()
STORED = {"path": "/github", "scheme": "github", "secrets": {"stored": "hook"}}


@pytest.fixture
def secrets(engine):
    """What is stored."""
    return StoredSecrets(engine, [KEY])


@pytest.fixture
def start_watching(start, secrets, tmp_path):
    """Start a gateway that looks for changed secrets."""

    async def started(endpoints, environment=None):
        watches = []

        def changed():
            if not watches:
                declared = read_declarations([tmp_path / "integration.yaml"])
                watches.append(StoredSecretsWatch(declared, environment or {}, secrets))
            return watches[0].changed()

        return await start(endpoints, environment=environment or {}, changed_endpoints=changed)

    return started


async def post(gateway, sign, secret, number=0):
    body = b'{"n":%d}' % number
    response = await gateway.client.post("/github", content=body, headers=sign(body, secret=secret))
    return response.status_code


async def test_an_endpoint_serves_as_soon_as_its_secret_is_stored(start_watching, secrets, sign):
    """Not set up, then activated: the very first test event is taken, without a restart."""
    gateway = await start_watching({"github": STORED})
    assert await post(gateway, sign, "one") == 503
    assert gateway.lines()[-1]["reason"].endswith("activate the integration")
    secrets.put("hook", "one")
    assert await post(gateway, sign, "one") == 202


async def test_a_new_secret_is_taken_up_at_once_and_the_old_one_stays(
    start_watching, secrets, sign
):
    """What does not fit is looked up again: rotation loses nothing on either side."""
    secrets.put("hook", "one")
    gateway = await start_watching({"github": STORED})
    assert await post(gateway, sign, "one", 1) == 202
    secrets.put("hook", "two")
    assert await post(gateway, sign, "two", 2) == 202
    assert await post(gateway, sign, "one", 3) == 202
    secrets.put("hook", "three")
    assert await post(gateway, sign, "three", 4) == 202
    assert await post(gateway, sign, "one", 5) == 401
    assert await post(gateway, sign, "wrong", 6) == 401


async def test_secrets_of_the_environment_are_accepted_beside_stored_ones(
    start_watching, secrets, sign
):
    """Before the first activation, and after it."""
    endpoint = {**STORED, "secrets": {"stored": "hook", "env": "SECRET"}}
    gateway = await start_watching({"github": endpoint}, {"SECRET": "by hand"})
    assert await post(gateway, sign, "by hand", 1) == 202
    secrets.put("hook", "one")
    assert await post(gateway, sign, "one", 2) == 202
    assert await post(gateway, sign, "by hand", 3) == 202


async def test_forgers_do_not_make_it_look_at_every_request():
    """However many requests are forged, the database is asked now and then only."""
    looks = []
    renewal = Renewal(lambda: looks.append(1), lambda _made: None, pause_s=3600, max_waiting=2)
    await renewal.look()
    renewal._waiting = 2  # two wait for the next look
    for _ in range(100):
        await renewal.look()
    assert len(looks) == 1


async def test_a_database_that_does_not_answer_changes_nothing(start_watching, secrets, sign):
    """The secrets that are known stay good."""
    secrets.put("hook", "one")
    gateway = await start_watching({"github": STORED})
    assert await post(gateway, sign, "one", 1) == 202

    def fails():
        raise OSError("gone")

    gateway.app._renewal._changed = fails
    assert await post(gateway, sign, "wrong", 2) == 401
    assert await post(gateway, sign, "one", 3) == 202


async def test_without_a_key_it_says_so(start, engine, secrets, tmp_path):
    """A gateway that cannot decrypt tells what to set, and serves the other endpoints."""
    secrets.put("hook", "one")
    await start({"github": STORED})
    declared = read_declarations([tmp_path / "integration.yaml"])
    (endpoint,) = StoredSecretsWatch(declared, {}, StoredSecrets(engine, [])).changed()
    assert "set INTEGRATIONS_SECRETS_KEY" in endpoint.reason
