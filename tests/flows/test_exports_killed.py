"""An export killed at any step repeats no effect and leaves none out.

Each event is handled by a process that kills itself before or after one of its calls (the send, the
record, the telling back), and then by another, as the inbox gives it to the next run.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deployments.prefect_file import read_deployments
from sandbox.systems import fulfilment_api, github_api, helpdesk_api

PROGRAM = Path(__file__).with_name("exporting_process.py")
RULES = next(
    each["parameters"]["rules"]
    for each in read_deployments()
    if each["name"] == "order-events-export"
)
# more than any export has, so that the last ones live
STEPS = 18


@pytest.fixture
def killed(own_app, migrated_sqlite, tmp_path):
    """Handles one payload for each step; returns at how many steps a process died."""
    database = shutil.copy(migrated_sqlite, tmp_path / "state.db")

    def killed(kind, payloads, other, **settings):
        settings |= {
            "database": f"sqlite:///{database}",
            "application": {
                "base_url": f"{own_app.base_url}/api/v1",
                "auth": {"kind": "api_key", "key": own_app.api_key},
            },
            "other": {
                "base_url": other.base_url,
                "auth": {"kind": "bearer", "token": other.auth.token.get_secret_value()},
            },
        }
        cases = [{"payload": each, "step": step} for step, each in enumerate(payloads, 1)]
        done = subprocess.run(
            [sys.executable, str(PROGRAM), kind, json.dumps(settings)],
            input=json.dumps(cases), capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        ended = json.loads(done.stdout)
        deaths = ended.count(False)
        assert ended == [False] * deaths + [True] * (STEPS - deaths)
        assert 0 < deaths < STEPS
        return deaths

    return killed


def stored(own_app, resource, records, key):
    """The events that tell of these new records."""
    own_app.http.post(
        f"/api/v1/{resource}/batch", json={"records": records}, headers={"Idempotency-Key": "k"}
    ).raise_for_status()
    singular = resource.removesuffix("s")
    return [
        {
            "id": f"evt_{number}", "type": f"{singular}.created",
            "timestamp": record["changed_at"], "source": None, "data": record,
        }
        for number, record in enumerate(
            sorted(own_app.records(resource), key=lambda record: record[key])
        )
    ]  # fmt: skip


def orders():
    return [
        {
            "order_no": f"SO-{number:02}", "customer": "Ann",
            "ordered_at": "2026-01-31T12:00:00Z", "status": "paid", "total": "3.00",
            "currency": "EUR", "lines": [{"sku": "W-1", "quantity": 2, "unit_price": "1.50"}],
        }
        for number in range(STEPS)
    ]  # fmt: skip


def tickets():
    return [
        {
            "ticket_no": f"T-{number:02}", "title": f"Ticket {number}", "status": "open",
            "labels": ["bug"],
        }
        for number in range(STEPS)
    ]  # fmt: skip


def told_ids(own_app, resource, name, key):
    return {each[key]: each["external_ids"][name] for each in own_app.records(resource)}


def test_order_events_export(killed, own_app):
    """Every order is shipped once, under one key, and own app knows the shipment."""
    events = stored(own_app, "orders", orders(), "order_no")
    with fulfilment_api.start() as fulfilment:
        assert killed("order_events_export", events, fulfilment.block(), rules=RULES) == 8
        assert len(fulfilment.effects) == len(fulfilment.shipments) == STEPS
        ids = {reference: each["id"] for reference, each in fulfilment.shipments.items()}
    assert told_ids(own_app, "orders", "fulfilment", "order_no") == ids


def test_ticket_escalation(killed, own_app):
    """Every ticket has one issue, though GitHub takes no idempotency keys."""
    events = stored(own_app, "tickets", tickets(), "ticket_no")
    with github_api.start() as github:
        repository = github.repository
        assert killed("ticket_escalation", events, github.block(), repository=repository) == 10
        issues = github.issues.issues.values()
        assert sorted(each["title"] for each in issues) == sorted(t["title"] for t in tickets())
        numbers = {each["title"]: f"{repository}#{each['number']}" for each in issues}
    told = told_ids(own_app, "tickets", "github", "title")
    assert told == numbers


def test_support_tickets_export(killed, own_app):
    """Every ticket is at the helpdesk once, and either side knows the other's."""
    events = stored(own_app, "tickets", tickets(), "ticket_no")
    with helpdesk_api.start() as helpdesk:
        assert killed("support_tickets", events, helpdesk.block()) == 12
        ids = {each["external_ref"]: str(each["id"]) for each in helpdesk.tickets.values()}
        assert len(helpdesk.tickets) == STEPS
    assert told_ids(own_app, "tickets", "helpdesk", "ticket_no") == ids


def test_support_tickets_import(killed, own_app):
    """Every ticket of the helpdesk is in the application once, and has not changed since."""
    with helpdesk_api.start() as helpdesk:
        for number in range(STEPS):
            helpdesk.add(subject=f"Ticket {number}")
        assert killed("helpdesk_import", list(helpdesk.tickets.values()), helpdesk.block()) == 4
        assert helpdesk.attempts == 0
    records = own_app.records("tickets")
    assert len(records) == STEPS
    assert {each["version"] for each in records} == {1}
