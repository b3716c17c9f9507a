"""Registrations at real APIs: exactly what is declared, whatever happened before."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from tasks.core.registry.secrets.store import StoredSecrets
from tasks.core.state.database import open_database

ALL = ("repository", "orders", "opportunity-created", "contact-created")


def stored(activations, name):
    engine = open_database(activations.database)
    try:
        found = StoredSecrets(engine, [activations.key]).newest(name)
    finally:
        engine.dispose()
    return found and found.value


def github_secret(activations):
    (hook,) = activations.github.hooks.hooks.values()
    return hook.config["secret"]


def test_activated_twice_is_activated_once(activations):
    """The second activation finds everything right and changes nothing."""
    assert set(activations.became().values()) == {"created"}
    assert activations.registered() == activations.expected(*ALL)
    ids = list(activations.github.hooks.hooks)
    assert set(activations.became().values()) == {"kept"}
    assert activations.registered() == activations.expected(*ALL)
    assert list(activations.github.hooks.hooks) == ids
    assert github_secret(activations) == stored(activations, "shop-github")


def test_a_new_public_url_changes_what_is_there(activations):
    """The same registrations call the new URL, and none calls the old one."""
    activations.run()
    ids = list(activations.github.hooks.hooks)
    activations.public_url = "https://new.example"
    assert set(activations.became().values()) == {"changed"}
    assert activations.registered() == activations.expected(*ALL)
    assert list(activations.github.hooks.hooks) == ids
    assert github_secret(activations) == stored(activations, "shop-github")


def test_what_is_declared_no_more_is_removed(activations):
    """Registrations of an endpoint that is gone go, others stay."""
    activations.run()
    for name in ("repository", "contact-created"):
        del activations.declaration["registrations"][name]
    became = activations.became()
    assert became == {
        "orders": "kept",
        "opportunity-created": "kept",
        "repository": "removed",
        "contact-created": "removed",
    }
    assert activations.registered() == activations.expected("orders", "opportunity-created")


def test_another_object_is_another_place(activations):
    """A message about another object is made anew, and the old one goes with its rule."""
    activations.run()
    activations.declaration["registrations"]["contact-created"]["object"] = "Account"
    activations.run()
    names = [name for name, _ in activations.registered()["salesforce"]]
    assert names == ["Account.shop_contact_created", "Opportunity.shop_opportunity_created"]
    assert len(activations.registered()["salesforce objects"]) == 5


def test_deactivated_leaves_nothing_but_what_others_made(activations):
    """All of ours goes, twice is fine."""
    activations.run()
    assert set(activations.became(deactivate=True).values()) == {"removed"}
    assert activations.registered() == activations.expected()
    assert activations.became(deactivate=True) == {}


@pytest.mark.parametrize("what", ["removed", "disabled", "other events", "other url"])
def test_drift_is_mended(activations, what):
    """What a third party has removed, switched off or changed is put right."""
    activations.run()
    (hook,) = activations.github.hooks.hooks.values()
    match what:
        case "removed":
            activations.github.hooks.hooks.clear()
        case "disabled":
            hook.active = False
        case "other events":
            hook.events = ["star"]
        case "other url":
            hook.config["url"] = "https://wrong.example"
    became = activations.became()
    assert became["repository"] == ("created" if what == "removed" else "changed")
    assert activations.registered() == activations.expected(*ALL)
    (hook,) = activations.github.hooks.hooks.values()
    assert hook.active
    assert github_secret(activations) == stored(activations, "shop-github")


def test_a_rule_that_is_gone_is_made_again(activations):
    """An outbound message without its rule sends nothing, so it counts as differing."""
    activations.run()
    tooling = activations.salesforce.tooling
    rules = tooling.query({}, "WorkflowRule")
    tooling.remove("WorkflowRule", rules[0]["Id"])
    assert sorted(activations.became().values()) == ["changed", "kept", "kept", "kept"]
    assert activations.registered() == activations.expected(*ALL)


def test_a_message_of_another_installation_is_left_alone(activations):
    """One of our name that calls somebody else is told, not taken."""
    activations.salesforce.tooling.create(
        "WorkflowOutboundMessage",
        {
            "FullName": "Contact.shop_contact_created",
            "Metadata": {"endpointUrl": "https://other.example/"},
        },
    )
    answer = activations.run()
    failed = [each for each in answer["done"] if each["became"] == "failed"]
    assert [each["name"] for each in failed] == ["contact-created"]
    assert "calls somewhere else" in failed[0]["told"]
    assert set(activations.became(deactivate=True).values()) == {"removed"}
    assert (
        "WorkflowOutboundMessage Contact.shop_contact_created"
        in (activations.registered()["salesforce objects"])
    )


@pytest.mark.parametrize("lost", ["taken", "not taken"])
def test_an_answer_that_got_lost_makes_no_second_registration(activations, lost):
    """Whether it was made or not is looked up, by the next activation at the latest."""
    activations.github.hooks.faults.lose_answer = lost
    activations.salesforce.faults.lose_answer = lost
    activations.run()
    activations.github.hooks.faults.lose_answer = None
    activations.run()
    assert activations.registered() == activations.expected(*ALL)
    assert github_secret(activations) == stored(activations, "shop-github")


def test_two_registrations_may_call_one_url(activations):
    """Even where the third party keeps no marker, neither takes the other's for its own."""
    registrations = activations.declaration["registrations"]
    orders = registrations["orders"] = {**registrations["orders"], "marker_field": None}
    registrations["changes"] = {**orders, "events": ["order.updated"]}
    for became in ("created", "kept"):
        assert set(activations.became().values()) == {became}
        assert [events for _, *events in activations.registered()["own app"]] == [
            ["order.created"],
            ["order.created"],
            ["order.updated"],
        ]


def test_lost_secrets_are_agreed_on_anew(activations):
    """Ours is sent again; one that the third party tells only once needs a new registration."""
    activations.run()
    before = {name: stored(activations, name) for name in ("shop-github", "shop-own-app")}
    engine = open_database(activations.database)
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM stored_secrets"))
    engine.dispose()
    became = activations.became()
    assert (became["repository"], became["orders"]) == ("changed", "created")
    assert activations.registered() == activations.expected(*ALL)
    assert github_secret(activations) == stored(activations, "shop-github")
    assert {name: stored(activations, name) for name in before}.items().isdisjoint(before.items())


def test_secrets_are_not_readable_in_the_database(activations, tmp_path):
    """Neither what we made nor what we were told stands anywhere in clear."""
    activations.run()
    content = b"".join(path.read_bytes() for path in tmp_path.glob("state.db*"))
    for name in ("shop-github", "shop-own-app"):
        assert stored(activations, name).encode() not in content
    assert b"shop-own-app" in content
