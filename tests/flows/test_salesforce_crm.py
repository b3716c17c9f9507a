"""Salesforce as a whole: its users, outbound messages, gateway process, inbox, flows, own app."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from cryptography.fernet import Fernet

from blocks.http_api import ApiKeyAuth, HttpApi
from flows.integration_activation.flow import activate_integration, deactivate_integration
from flows.salesforce_crm.contact_created import contact_created
from flows.salesforce_crm.dispatch import salesforce_crm
from flows.salesforce_crm.opportunity_created import opportunity_created
from flows.salesforce_crm.opportunity_updated import opportunity_updated
from sandbox.gateway_process import RunningGateway, running_gateway
from sandbox.systems.salesforce import ORGANIZATION_ID, USER
from tasks.core.intake.webhooks.verifier import verify

# Prefect's own clients leave sockets to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

FLOWS = Path(__file__).parents[2] / "flows" / "salesforce_crm"
CONSUMER = {"idle_timeout_s": 0, "retry_delays_s": []}
OPPORTUNITY = {
    "StageName": "Prospecting",
    "Amount": 1200,
    "CurrencyIsoCode": "EUR",
    "IsWon": False,
}


@pytest.fixture
def gateway(inbox, tmp_path, monkeypatch) -> Iterator[RunningGateway]:
    """A gateway that takes what Salesforce announces."""
    monkeypatch.setenv("SALESFORCE_ORGANIZATION_ID", ORGANIZATION_ID)
    monkeypatch.setenv("SALESFORCE_PATH_TOKEN", "nobody-guesses")
    monkeypatch.setenv("SALESFORCE_USER", USER)
    monkeypatch.setenv("INTEGRATIONS_SECRETS_KEY", Fernet.generate_key().decode())
    with running_gateway(
        FLOWS / "integration.yaml",
        tmp_path,
        os.environ["INTEGRATIONS_DATABASE_URL"],
        {},
    ) as running:
        yield running


@pytest.fixture
def activated(runs, gateway, salesforce, own_app):
    """Salesforce, which tells the gateway what happens."""
    salesforce.block().save("salesforce", overwrite=True)
    HttpApi(base_url=f"{own_app.base_url}/api/v1", auth=ApiKeyAuth(key=own_app.api_key)).save(
        "own-app", overwrite=True
    )
    state = runs.start(activate_integration, integration="salesforce_crm", public_url=gateway.url)
    assert state.is_completed(), state.message
    salesforce.messages.gather_s = 0.5  # so that what belongs together comes together
    return salesforce


def wait_until_acknowledged(salesforce, notifications):
    for _ in range(600):
        told = [each for each in salesforce.messages.sent if each.acknowledged]
        if sum(len(each.notification_ids) for each in told) >= notifications:
            return told
        time.sleep(0.05)
    raise AssertionError({each.status for each in salesforce.messages.sent})


def test_one_message_of_a_hundred_of_which_one_is_bad(activated, runs, inbox, own_app):
    """One acknowledgement, 99 effects, one dead letter with its reason, few calls to Salesforce."""
    for number in range(100):
        name = "" if number == 41 else f"Deal {number}"
        activated.records.create("Opportunity", Name=name, **OPPORTUNITY)
    (sent,) = wait_until_acknowledged(activated, 100)
    assert (len(sent.notification_ids), sent.status) == (100, 200)
    assert runs.start(salesforce_crm, consumer=CONSUMER).message == "100 handed over"
    activated.requests.clear()
    state = runs.start(opportunity_created, consumer={**CONSUMER, "concurrency": 100})
    assert state.is_failed()
    assert state.message.startswith("99 done, 1 dead-lettered: Opportunity ")
    assert "Name: String should have at least 1 character" in state.message
    titles = {each["title"] for each in own_app.records("activities")}
    assert titles == {f"Deal {number}" for number in range(100) if number != 41}
    assert Counter(inbox.statuses().values()) == {"done": 99, "dead_letter": 1}
    assert len(activated.requests) < 10
    assert set(activated.requests) == {"POST /composite/sobjects/Opportunity"}


def test_each_kind_goes_to_its_own_sibling(activated, runs, own_app):
    """Created, updated and won opportunities and contacts end where they belong."""
    activated.records.create("Contact", LastName="Okafor", FirstName="Ada", Email="a@example.com")
    won = activated.records.create("Opportunity", Name="Deal", **OPPORTUNITY)
    lost = activated.records.create("Opportunity", Name="Other", **OPPORTUNITY)
    activated.records.update("Opportunity", won, StageName="Closed Won", IsWon=True)
    activated.records.update("Opportunity", lost, StageName="Closed Lost")
    wait_until_acknowledged(activated, 5)
    assert runs.start(salesforce_crm, consumer=CONSUMER).message == "5 handed over"
    assert runs.start(contact_created, consumer=CONSUMER).message == "1 done"
    assert runs.start(opportunity_created, consumer=CONSUMER).message == "2 done"
    assert runs.start(opportunity_updated, consumer=CONSUMER).message == "2 done"
    (contact,) = own_app.records("contacts")
    assert (contact["name"], contact["email"]) == ("Ada Okafor", "a@example.com")
    (order,) = own_app.records("orders")
    assert (order["order_no"], order["total"]) == (f"SF-{won}", "1200")
    kinds = Counter(each["kind"] for each in own_app.records("activities"))
    assert kinds == {"opportunity.created": 2, "opportunity.stage": 1}


def test_an_organisation_with_one_currency_has_no_field_of_it(runs, inbox, salesforce, own_app):
    """The flow is told it; not told, one call says for all that wait what is to be mended."""
    salesforce.block().save("salesforce", overwrite=True)
    HttpApi(base_url=f"{own_app.base_url}/api/v1", auth=ApiKeyAuth(key=own_app.api_key)).save(
        "own-app", overwrite=True
    )
    salesforce.has_currencies = False
    won = {**OPPORTUNITY, "StageName": "Closed Won", "IsWon": True}
    ids = [salesforce.records.create("Opportunity", Name=f"Deal {n}", **won) for n in range(8)]

    def announce(*, to):
        for id_ in ids:
            notification = {
                "notification_id": f"04l{id_}",
                "action_id": "04k000000000001",
                "object_type": "Opportunity",
                "record": {"Id": id_},
            }
            inbox.deliver(to, notification)

    announce(to="salesforce_opportunity_created")
    assert runs.start(opportunity_created, consumer=CONSUMER).message == "8 done"
    announce(to="salesforce_opportunity_updated")
    salesforce.requests.clear()
    state = runs.start(opportunity_updated, consumer={**CONSUMER, "concurrency": 8})
    assert state.message.startswith("8 dead-lettered: ")
    assert "No such column 'CurrencyIsoCode'" in state.message
    assert len(salesforce.requests) < 3
    announce(to="salesforce_opportunity_updated")
    state = runs.start(opportunity_updated, currency="CHF", consumer=CONSUMER)
    assert {(order["total"], order["currency"]) for order in own_app.records("orders")} == {
        ("1200", "CHF")
    }


def test_a_message_sent_again_has_no_second_effect(activated, runs, inbox, own_app):
    """Salesforce repeats what it thinks was not acknowledged; each notification counts once."""
    activated.messages.faults.forget_acks = 2
    activated.records.create("Opportunity", Name="Deal", **OPPORTUNITY)
    wait_until_acknowledged(activated, 1)
    assert len(activated.messages.sent) == 3
    assert runs.start(salesforce_crm, consumer=CONSUMER).message == "1 handed over"
    assert runs.start(opportunity_created, consumer=CONSUMER).message == "1 done"
    assert len(own_app.records("activities")) == 1


def test_deleted_and_purged_records_are_told_apart(activated, runs, inbox):
    """What was deleted meanwhile is ignored; what cannot be seen is a dead letter; both say so."""
    ids = [
        activated.records.create("Opportunity", Name=f"Deal {n}", **OPPORTUNITY) for n in range(3)
    ]
    wait_until_acknowledged(activated, 3)
    activated.records.delete("Opportunity", ids[1])
    activated.records.delete("Opportunity", ids[2], purge=True)
    runs.start(salesforce_crm, consumer=CONSUMER)
    state = runs.start(opportunity_created, consumer=CONSUMER)
    assert state.message.startswith("1 done, 1 ignored, 1 dead-lettered: Opportunity ")
    assert "was purged, or the block's user lacks the permission" in state.message
    reasons = {inbox.reason(id_) for id_, status in inbox.statuses().items() if status == "ignored"}
    assert reasons == {f"Opportunity {ids[1]} was deleted in Salesforce meanwhile"}


def test_a_spent_allowance_is_waited_for(activated, runs, inbox, own_app):
    """When the day's calls are used up, notifications are handled later and not dead-lettered."""
    activated.records.create("Opportunity", Name="Deal", **OPPORTUNITY)
    wait_until_acknowledged(activated, 1)
    runs.start(salesforce_crm, consumer=CONSUMER)
    activated.max_api_calls = activated.api_calls
    state = runs.start(opportunity_created, consumer=CONSUMER)
    assert state.is_failed()
    assert list(inbox.statuses().values()) == ["failed"]
    activated.max_api_calls += 10
    state = runs.retry(opportunity_created)
    assert state.message == "1 done"
    assert len(own_app.records("activities")) == 1


def test_what_nobody_registered_is_tried_again_later(activated, runs, inbox):
    """A message that is not ours, or not recorded yet, is not guessed at."""
    activated.tooling.create(
        "WorkflowOutboundMessage",
        {"FullName": "Contact.stranger", "Metadata": {"endpointUrl": url_of(activated)}},
    )
    activated.tooling.create(
        "WorkflowRule",
        {
            "FullName": "Contact.stranger",
            "Metadata": {
                "active": True,
                "triggerType": "onAllChanges",
                "formula": "NOT(ISNEW())",
                "actions": [{"name": "stranger", "type": "OutboundMessage"}],
            },
        },
    )
    id_ = activated.records.create("Contact", LastName="Okafor")
    activated.records.update("Contact", id_, LastName="Marques")
    wait_until_acknowledged(activated, 2)
    state = runs.start(salesforce_crm, consumer=CONSUMER)
    assert "none of our registrations has the id" in state.message
    assert Counter(inbox.statuses().values()) == {"failed": 1, "received": 1}


def test_activation_tells_no_secret_path(activated, runs, gateway):
    """The artifact shows where Salesforce calls, without what nobody shall guess."""
    (artifact,) = runs.artifacts()
    assert "${SALESFORCE_PATH_TOKEN}" in str(artifact.data)
    assert "nobody-guesses" not in str(artifact.data)
    assert set(activated.tooling.registered().values()) == {
        f"{gateway.url}/webhooks/salesforce/nobody-guesses"
    }
    assert runs.tasks()["register salesforce_crm/contact-created"] == "Completed"
    state = runs.start(deactivate_integration, integration="salesforce-crm")
    assert state.message == "3 removed; switched off: nothing"
    assert activated.tooling.objects() == []


def test_the_samples_are_what_salesforce_sends_and_the_flows_take(activated, runs, own_app):
    """The message is read as the notification beside it, which the run form takes."""
    message = (FLOWS / "samples" / "outbound_message.xml").read_bytes()
    notification = yaml.safe_load((FLOWS / "samples" / "notification.yaml").read_text())
    verified = verify(
        "salesforce",
        secrets=[ORGANIZATION_ID],
        method="POST",
        url="https://hooks.example/",
        headers={},
        body=message,
        now=datetime.now(UTC),
    )
    first, second = verified.read_events()
    assert json.loads(first.payload) == notification
    assert (first.dedup_key, first.ordering_key) == ("04l000000000007AAA", "006000000000001AAA")
    assert second.ordering_key == "006000000000002AAA"
    id_ = activated.records.create("Opportunity", Name="Deal", **OPPORTUNITY)
    state = runs.start(opportunity_created, payload={**notification, "record": {"Id": id_}})
    assert state.message == "sample done"
    assert [each["title"] for each in own_app.records("activities")] == ["Deal"]


def url_of(salesforce) -> str:
    return next(iter(salesforce.tooling.registered().values()))
