"""One page about an integration: all there is of it, and no secret."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from cryptography.fernet import Fernet
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

from blocks.http_api import HttpApi
from deployments.show import main
from flows.github_events.flow import github_events
from tasks.core.intake.inbox.new_delivery import NewDelivery
from tasks.core.intake.inbox.rows import LeaseOwner
from tasks.core.intake.inbox.settlement import Settlement
from tasks.core.intake.inbox.store import Inbox
from tasks.core.intake.inbox.writer import InboxWriter
from tasks.core.registry.activation.desired import declared_integration, desired_registrations
from tasks.core.registry.activation.ledger import ActivationLedger
from tasks.core.registry.secrets.store import StoredSecrets
from tasks.core.state.database import open_database
from tasks.core.sync.api_import.cursors import Cursors

# Prefect's own clients leave sockets to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

SECRET = f"hush-{uuid4().hex}"
PUBLIC_URL = "https://hooks.example"
NO_SERVER = "http://127.0.0.1:9/api"


@pytest.fixture
def state(migrated_sqlite, tmp_path, monkeypatch):
    """An engine of the state database that the command uses."""
    url = f"sqlite:///{shutil.copy(migrated_sqlite, tmp_path / 'state.db')}"
    monkeypatch.setenv("INTEGRATIONS_DATABASE_URL", url)
    monkeypatch.delenv("INTEGRATIONS_PUBLIC_URL", raising=False)
    engine = open_database(url)
    yield engine
    engine.dispose()


@pytest.fixture
def shown(capsys):
    """Shows an integration, by default without Prefect; returns the lines without indent."""

    def shown(name, server=None):
        with temporary_settings(updates={PREFECT_API_URL: server}):
            assert main([name]) == 0
        return [line.strip() for line in capsys.readouterr().out.splitlines()]

    return shown


async def store(engine, *keys):
    writer = InboxWriter(engine)
    await writer.start()
    await writer.store(
        [
            NewDelivery(
                integration="github_events",
                endpoint="/webhooks/github",
                event="push",
                dedup_key=key,
                ordering_key=None,
                headers=b"[]",
                body=SECRET.encode(),
                payload=None,
                content_type="application/json",
                received_at=datetime(2026, 3, 1, 12, tzinfo=UTC),
            )
            for key in keys
        ]
    )
    await writer.close()


def test_what_is_declared(state, shown):
    """Pattern, summary, flows, deployments with what starts them, endpoints, blocks."""
    lines = shown("github-events")
    assert lines[0] == "github_events: event-driven, one flow that branches by event type"
    assert lines[1].startswith("pushes, issues and pull requests")
    assert "flows.github_events.flow.github_events" in lines
    assert "github-events             when deliveries wait in github_events" in lines
    assert "activate-github-events    by hand" in lines
    assert "github: /webhooks/github, scheme github" in lines
    assert "http-api/github" in lines


def test_schedules_have_their_zone(state, shown):
    """As the cron that Prefect is given."""
    assert "weekly-sales  cron 0 19 * * 4, Europe/Berlin" in shown("sales_report")


def test_what_is_set_and_no_secret(state, shown, monkeypatch):
    """Variables and stored secrets are set or not; the secret part of a URL is hidden."""
    monkeypatch.setenv("INTEGRATIONS_PUBLIC_URL", PUBLIC_URL)
    monkeypatch.setenv("SALESFORCE_PATH_TOKEN", SECRET)
    monkeypatch.setenv("GITHUB_WEBHOOK_SECRET", SECRET)
    key = Fernet.generate_key().decode()
    monkeypatch.setenv("INTEGRATIONS_SECRETS_KEY", key)
    github = shown("github_events")
    assert "GITHUB_WEBHOOK_SECRET      set" in github
    assert "GITHUB_WEBHOOK_SECRET_OLD  not set" in github
    assert "github-events  not set" in github
    StoredSecrets(state, [key]).put("github-events", SECRET)
    github = shown("github_events")
    assert "github-events  set, version 1" in github
    salesforce = shown("salesforce_crm")
    path = "/webhooks/salesforce/${SALESFORCE_PATH_TOKEN}"
    assert f"salesforce: {PUBLIC_URL}{path}, scheme salesforce" in salesforce
    assert "SALESFORCE_PATH_TOKEN       set" in salesforce
    for told in (SECRET, key):
        assert told not in "\n".join([*github, *salesforce])


def test_what_is_registered(state, shown):
    """Whether the integration is active, and each registration with what went wrong last."""
    lines = shown("github_events")
    assert "never activated" in lines
    assert "repository at http-api/github: not registered" in lines
    ledger = ActivationLedger(state, run_id="a run")
    ledger.begin("github_events", is_active=True, public_url=PUBLIC_URL)
    [desired] = desired_registrations(
        declared_integration("github_events"), PUBLIC_URL, {"GITHUB_EVENTS_REPOSITORY": "a"}
    )
    entry = ledger.intend(desired, "https://api.example/hooks")
    there = f"calls {PUBLIC_URL}/webhooks/github"
    assert f"repository at http-api/github: under way, {there}" in shown("github_events")
    ledger.record(entry, "17", secret_digest=None)
    lines = shown("github_events")
    assert "active" in lines
    assert f"repository at http-api/github: active, {there}" in lines
    ledger.record_problem(entry, "refused\x1b[31m")
    assert f"repository at http-api/github: active, {there}; refused?[31m" in shown("github_events")


def test_what_waits_and_what_is_dead_lettered(state, shown):
    """By queue; deliveries themselves are not shown."""
    asyncio.run(store(state, "one", "two", "three"))
    inbox = Inbox(state)
    [leased] = inbox.lease("github_events", LeaseOwner("run"), limit=1)
    inbox.settle([Settlement(leased, "dead_letter", "unknown")])
    inbox.close()
    lines = shown("github_events")
    assert "github_events: 2 wait, 1 dead-lettered" in lines
    assert SECRET not in "\n".join(lines)


def test_cursors_of_an_integration(state, shown):
    """Those of its deployments' streams, be they declared or the flow's own; no others."""
    cursors = Cursors(state)
    for stream in ("marketplace-orders", "erp-stock"):
        cursors.release(cursors.advance(cursors.lease(stream, owner="run"), f"at {stream}"))
    assert "marketplace-orders: at marketplace-orders, 0 rejects" in shown("orders_import")
    lines = shown("table_import")
    assert "erp-stock: at erp-stock, 0 rejects" in lines
    assert "marketplace-orders" not in "\n".join(lines)


def test_a_database_that_does_not_answer_is_one_line(shown, monkeypatch):
    """The rest is shown, and so is Prefect's absence."""
    monkeypatch.setenv("INTEGRATIONS_DATABASE_URL", f"postgresql://u:{SECRET}@127.0.0.1:9/x")
    lines = shown("github_events", server=NO_SERVER)
    assert "github: /webhooks/github, scheme github" in lines
    assert sum("state database does not answer" in line for line in lines) == 1
    assert sum(line.startswith(f"{NO_SERVER}: connect: it does not answer") for line in lines) == 1
    assert SECRET not in "\n".join(lines)


def test_what_prefect_has(prefect_server, state, shown):
    """Which deployments and blocks are there, and which are paused."""

    async def deploy():
        async with get_client() as client:
            with contextlib.suppress(ValueError):  # other tests of this server may have made it
                await HttpApi.adelete("github")
            flow_id = await client.create_flow(github_events)
            return await client.create_deployment(
                flow_id, "github-events", tags=["github-events"], paused=True
            )

    async def remove(id_):
        async with get_client() as client:
            await client.delete_deployment(id_)

    id_ = asyncio.run(deploy())
    lines = [
        " ".join(line.split()) for line in shown("github_events", server=PREFECT_API_URL.value())
    ]
    asyncio.run(remove(id_))
    assert "deployment github-events paused" in lines
    assert "deployment activate-github-events not deployed" in lines
    assert "block http-api/github not there" in lines


def test_an_unknown_name_is_told(capsys):
    """With those that there are."""
    assert main(["github"]) == 1
    told = capsys.readouterr().err
    assert "there is no such integration; there are callback_sending, crm_contacts" in told
