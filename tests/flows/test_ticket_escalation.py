"""The escalation of tickets as a whole: own app, inbox, Prefect server and GitHub."""

from __future__ import annotations

from datetime import UTC, datetime

import httpx
import pytest

from blocks.http_api import ApiKeyAuth, HttpApi
from flows.ticket_escalation.flow import ticket_escalation
from flows.ticket_escalation.issues import Repository, issue_of
from sandbox.systems import github_api
from tasks.api import open_api
from tasks.core.intake.inbox.operations import DeliveryFilter

# Prefect's own clients leave sockets to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

QUICK = {
    "repository": "example-shop/storefront",
    "consumer": {"idle_timeout_s": 0, "retry_delays_s": [0.01], "concurrency": 4},
}
TICKET = {
    "ticket_no": "T-1",
    "title": "It breaks",
    "description": "@octocat <!-- hidden --> #1",
    "status": "open",
    "labels": ["bug"],
}


@pytest.fixture
def github():
    with github_api.start() as running:
        yield running


@pytest.fixture
def place(own_app, github, runs, inbox, own_app_events):
    """Both systems are known to Prefect, and own app tells of its tickets."""
    HttpApi(base_url=f"{own_app.base_url}/api/v1", auth=ApiKeyAuth(key=own_app.api_key)).save(
        "own-app", overwrite=True
    )
    github.block().save("github", overwrite=True)
    own_app_events.subscribe("ticket_escalation", "ticket", key="ticket_no")


@pytest.fixture
def relay(own_app_events):
    """Stores what own app has sent since as deliveries; returns their ids."""
    return own_app_events.relay


@pytest.fixture
def step(own_app, relay, runs):
    """Changes the ticket, lets its event be handled, and tells how the run ended."""

    def step(*, echoes=0, **changes):
        ticket = {**TICKET, **changes}
        own_app.http.put(f"/api/v1/tickets/{ticket['ticket_no']}", json=ticket).raise_for_status()
        relay(1)
        state = runs.start(ticket_escalation, **QUICK)
        relay(echoes)
        return state

    return step


def ticket_of(own_app):
    return own_app.http.get("/api/v1/tickets/T-1").json()


def test_issue_follows_its_ticket(place, step, github, own_app, relay, runs):
    """Opened with the ticket, changed, closed when solved, opened again, closed at the end."""
    assert step(echoes=1).message == "1 done"
    [issue] = github.issues.issues.values()
    assert (issue["title"], issue["state"]) == ("It breaks", "open")
    assert issue["labels"] == [{"name": "from-support"}]
    assert ticket_of(own_app)["external_ids"] == {"github": "example-shop/storefront#1"}

    assert step(title="It breaks daily").message == "1 done, 1 ignored"  # our own change
    assert step(title="It breaks daily", status="solved").message == "1 done"
    [issue] = github.issues.issues.values()
    assert (issue["title"], issue["state"]) == ("It breaks daily", "closed")
    assert step(status="open").message == "1 done"
    assert github.issues.issues[1]["state"] == "open"
    own_app.http.delete("/api/v1/tickets/T-1")
    relay(1)
    assert runs.start(ticket_escalation, **QUICK).message == "1 done"
    assert github.issues.issues[1]["state"] == "closed"
    assert len(github.issues.issues) == 1


def test_other_tickets_are_no_matter_for_developers(place, step, github):
    """Without the label nothing is opened; a ticket that is solved already neither."""
    assert step(labels=[]).message == "1 ignored"
    assert step(status="solved").message == "1 ignored"
    assert github.issues.writes == 0


def test_redelivery_opens_no_second_issue(place, step, github, own_app, inbox, runs):
    """A delivery that is handled once more, with new effects asked for, finds its issue."""
    step()
    own_app.http.patch("/api/v1/tickets/T-1", json={"external_ids": {"github": None}})
    inbox.operations.replay(
        DeliveryFilter(integration="ticket_escalation"), dry_run=False, new_effects=True
    )
    assert runs.start(ticket_escalation, **QUICK).message == "1 done"
    assert list(github.issues.issues) == [1]
    assert ticket_of(own_app)["external_ids"] == {"github": "example-shop/storefront#1"}


def test_customers_text_mentions_nobody_and_hides_nothing():
    """Mentions, references and comments in a ticket have no effect at GitHub."""
    ticket = {**TICKET, "priority": "high", "title": "a\nb", "external_ids": None}
    issue = issue_of(ticket, label="bug", is_deleted=False)
    assert issue.title == "a b"
    assert "@octocat" not in issue.body
    assert issue.body.count("<!--") == 1
    assert "#1" not in issue.body


def test_issue_is_found_among_many(github):
    """The marker is looked for on every page, among our own issues only."""
    with open_api(github.block()) as api:
        ours = Repository(api, "example-shop/storefront", "from-support")
        numbers = {}
        for number in range(130):
            ticket = {**TICKET, "ticket_no": f"T-{number}", "priority": "low"}
            numbers[number] = ours.open(issue_of(ticket, label="bug", is_deleted=False))
        told_at = datetime.now(UTC)
        assert ours.find("T-3", told_at=told_at) == numbers[3]
        assert ours.find("T-13", told_at=told_at) == numbers[13]
        assert ours.find("T-999", told_at=told_at) is None
    token = github.block().auth.token.get_secret_value()
    listed = httpx.get(
        f"{github.url}/repos/example-shop/storefront/issues",
        headers={"Authorization": f"Bearer {token}"},
    )
    assert len(listed.json()) == 30
