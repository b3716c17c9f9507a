"""Exports subscribe at own app by activation: its events then reach the inbox, signed."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from blocks.http_api import ApiKeyAuth, HttpApi
from flows.integration_activation.flow import activate_integration, deactivate_integration
from sandbox.gateway_process import running_gateway
from tasks.core.intake.inbox.operations import DeliveryFilter

# Prefect's own clients leave sockets to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

FLOWS = Path(__file__).parents[2] / "flows"
ORDER = {
    "order_no": "X-1", "customer": "Ann", "ordered_at": "2026-01-31T12:00:00Z", "status": "paid",
    "total": "3.00", "currency": "EUR", "lines": [],
}  # fmt: skip
TICKET = {"ticket_no": "X-1", "title": "It breaks", "status": "open"}


@pytest.mark.parametrize(
    ("integration", "resource", "record"),
    [
        ("order_events_export", "order", ORDER),
        ("ticket_escalation", "ticket", TICKET),
        ("support_tickets", "ticket", TICKET),
    ],
)
def test_activated_export_hears_of_changes(
    runs, own_app, inbox, tmp_path, monkeypatch, integration, resource, record
):
    """Activation subscribes once and is pinged; changes then wait in the inbox; it is undone."""
    monkeypatch.setenv("INTEGRATIONS_SECRETS_KEY", Fernet.generate_key().decode())
    HttpApi(base_url=f"{own_app.base_url}/api/v1", auth=ApiKeyAuth(key=own_app.api_key)).save(
        "own-app", overwrite=True
    )
    [declaration] = (FLOWS / integration).glob("*.yaml")
    database_url = os.environ["INTEGRATIONS_DATABASE_URL"]
    with running_gateway(declaration, tmp_path, database_url, {}) as gateway:
        activate = {"integration": integration, "public_url": gateway.url}
        assert runs.start(activate_integration, **activate).message.startswith("1 created")
        assert "the ping arrived: we answered 2" in str(runs.artifacts()[0].data)
        assert runs.start(activate_integration, **activate).message.startswith("1 kept")
        [webhook] = own_app.http.get("/api/v1/webhooks").json()["webhooks"]
        assert webhook["url"].startswith(f"{gateway.url}/webhooks/")
        assert webhook["events"] == [
            f"{resource}.{what}" for what in ("created", "updated", "deleted")
        ]

        own_app.http.put(f"/api/v1/{resource}s/X-1", json=record).raise_for_status()
        deadline = time.monotonic() + 20
        wanted = DeliveryFilter(integration=integration, statuses=("received", "queued"))
        while not (waiting := inbox.operations.select(wanted)):
            assert time.monotonic() < deadline, (tmp_path / "access.log").read_text()
            time.sleep(0.05)
        assert [(each.event, each.status) for each in waiting] == [
            (f"{resource}.created", "received")
        ]
    assert runs.start(deactivate_integration, integration=integration).is_completed()
    assert own_app.http.get("/api/v1/webhooks").json() == {"webhooks": []}
