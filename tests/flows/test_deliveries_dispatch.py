"""The pre-process flow hands each event to its sibling."""

from __future__ import annotations

import pytest

from flows.deliveries_dispatch.flow import deliveries_dispatch
from tasks.core.intake.inbox.operations import DeliveryFilter

# Prefect's own clients leave sockets to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

ROUTES = [
    {"when": {"object": "Contact"}, "to": "crm_contacts"},
    {"when": {"object": "Opportunity", "change": ["created", "updated"]}, "to": "crm_deals"},
]
QUICK = {"consumer": {"idle_timeout_s": 0}}


def test_each_event_to_its_sibling(runs, inbox):
    """Events are handed over by the first matching rule; one without a rule is dead-lettered."""
    contact = inbox.deliver("crm", {"object": "Contact"}, event="changed")
    deal = inbox.deliver("crm", {"object": "Opportunity", "change": "created"}, event="changed")
    other = inbox.deliver("crm", {"object": "Case"}, event="changed")
    state = runs.start(deliveries_dispatch, integration="crm", routes=ROUTES, **QUICK)
    assert state.is_failed()
    assert state.message == (
        f"2 handed over, 1 dead-lettered: changed {other} dead-lettered "
        "(no rule says whose it is; add one, then replay)"
    )
    found = {
        each.id: (each.integration, each.status)
        for each in inbox.operations.select(DeliveryFilter())
    }
    assert found == {
        contact: ("crm_contacts", "received"),
        deal: ("crm_deals", "received"),
        other: ("crm", "dead_letter"),
    }
    assert runs.tasks()[f"changed {contact}"] == "Handed over"
