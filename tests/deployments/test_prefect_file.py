"""What the deployments in `prefect.yaml` are given besides what is written there."""

from __future__ import annotations

from prefect.events import DeploymentTriggerTypes
from pydantic import TypeAdapter

from deployments.prefect_file import completed, integration_of, read_deployments
from tasks.core.registry.declarations import IntegrationDeclaration

DEPLOYMENTS = {each["name"]: each for each in read_deployments()}
QUEUES = {
    "callback-sending": "callbacks",
    "crm-contacts-export": "crm_contacts_export",
    "crm-contacts-import": "crm_contacts_import",
    "github-events": "github_events",
    "inventory-updates": "inventory_updates",
    "order-events-export": "order_events_export",
    "price-quote": "price_quote",
    "salesforce-contact-created": "salesforce_contact_created",
    "salesforce-crm": "salesforce_crm",
    "salesforce-opportunity-created": "salesforce_opportunity_created",
    "salesforce-opportunity-updated": "salesforce_opportunity_updated",
    "stream-intake": "stream_intake",
    "support-tickets-export": "support_tickets",
    "ticket-escalation": "ticket_escalation",
}
SHOP = IntegrationDeclaration.model_validate(
    {
        "integration": "shop",
        "endpoints": {
            "orders": {"path": "/o", "scheme": "none", "feeds": "shop-events"},
            "returns": {"path": "/r", "scheme": "none", "feeds": "shop-events", "queue": "back"},
        },
    }
)


def one(deployment):
    [found] = completed({"deployments": [deployment]}, [SHOP])["deployments"]
    return found


def test_what_is_fed_by_deliveries_starts_when_some_wait():
    """Each of them, and no other, has one trigger; its name is that of former automations."""
    found = {name: each["triggers"] for name, each in DEPLOYMENTS.items() if "triggers" in each}
    assert found == {
        name: [
            {
                "type": "event",
                "name": f"deliveries wait for {name}",
                "enabled": True,
                "match": {"prefect.resource.id": f"inbox.{queue}"},
                "expect": ["inbox.deliveries-waiting"],
            }
        ]
        for name, queue in QUEUES.items()
    }


def test_nothing_of_our_own_reaches_prefect():
    """The queue is told by the trigger."""
    assert all("queue" not in each for each in DEPLOYMENTS.values())


def test_tags_find_the_deployments_of_an_integration():
    """The integration's comes first, also of what activates it; those in the file follow."""
    assert DEPLOYMENTS["github-events"]["tags"] == ["github-events", "demo-events"]
    assert DEPLOYMENTS["activate-github-events"]["tags"] == [
        "github-events",
        "integration-activation",
        "activation",
    ]
    assert DEPLOYMENTS["check-registrations"]["tags"] == ["integration-activation", "activation"]
    assert integration_of(DEPLOYMENTS["deactivate-github-events"]) == "github_events"


def test_a_deployment_that_several_endpoints_feed_has_one_trigger():
    """It matches all of their queues, in a form that Prefect takes."""
    [trigger] = one({"name": "shop-events", "entrypoint": "flows.shop.flow.shop"})["triggers"]
    assert trigger["match"] == {"prefect.resource.id": ["inbox.shop", "inbox.back"]}
    assert TypeAdapter(DeploymentTriggerTypes).validate_python(trigger).enabled


def test_what_is_written_stays():
    """Triggers and tags of one's own are kept, as are entrypoints outside the integrations."""
    mine = {
        "name": "shop-events",
        "entrypoint": "flows.shop.flow.shop",
        "tags": ["shop", "event-driven"],
        "triggers": [{"type": "event", "name": "mine"}],
    }
    assert one(mine) == mine
    other = {"name": "other", "entrypoint": "elsewhere/flow.py:run", "tags": ["x"]}
    assert one(other) == other
