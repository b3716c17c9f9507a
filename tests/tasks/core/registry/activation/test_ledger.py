"""The ledger of registrations: who may work, and what is remembered."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

import pytest

from blocks.errors import LeaseLostError, UpstreamBusyError
from tasks.core.registry.activation import ledger as ledger_module
from tasks.core.registry.activation.ledger import ActivationLedger
from tasks.core.registry.activation.registrar import DesiredRegistration, url_digest
from tasks.core.registry.registrations import RestRegistration

NOW = datetime(2026, 3, 1, tzinfo=UTC)
PLACE = "https://api.example/webhooks"


class Clock:
    now = NOW

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    """Time, to be moved."""
    return Clock()


def ledger(engine, clock, run_id):
    return ActivationLedger(engine, run_id=run_id, lease_s=60, clock=clock)


def desired(url="https://hooks.example/a?token=visible"):
    registration = RestRegistration(
        kind="rest", endpoint="a", connection="http-api/a", path="webhooks", events=["x"]
    )
    return DesiredRegistration(
        "shop", "orders", url, "https://hooks.example/a?token=${TOKEN}", registration
    )


def test_one_activation_at_a_time(state_database, clock):
    """A second one is told to wait, and has it when the first has ended."""
    one, two = (ledger(state_database, clock, name) for name in ("one", "two"))
    one.begin("shop", is_active=True, public_url="https://hooks.example")
    with pytest.raises(UpstreamBusyError, match="another activation") as caught:
        two.begin("shop")
    assert caught.value.retry_after_s == 60
    two.begin("other")
    one.end("shop")
    state = two.begin("shop")
    assert (state.is_active, state.public_url) == (True, "https://hooks.example")
    with pytest.raises(LeaseLostError):
        one.intend(desired(), PLACE)


def test_what_was_switched_is_remembered(state_database, clock):
    """Active is what it shall be; switched on is what its deployments are."""
    one, two = (ledger(state_database, clock, name) for name in ("one", "two"))
    assert one.begin("shop", is_active=True).is_switched_on is False
    one.record_switched("shop", on=True)
    one.end("shop")
    state = two.begin("shop", is_active=False)
    assert (state.is_active, state.is_switched_on) == (False, True)
    with pytest.raises(LeaseLostError):
        one.record_switched("shop", on=False)


def test_the_lease_of_a_dead_machine_runs_out(state_database, clock, monkeypatch):
    """Work renews it; silence ends it."""
    one, two = (ledger(state_database, clock, name) for name in ("one", "two"))
    one.begin("shop")
    clock.now += timedelta(seconds=50)
    one.intend(desired(), PLACE)
    clock.now += timedelta(seconds=50)
    with pytest.raises(UpstreamBusyError):
        two.begin("shop")
    clock.now += timedelta(seconds=11)
    two.begin("shop")


def test_a_retried_run_goes_on_at_once(state_database, clock):
    """The same run again, in whatever process, has the integration still."""
    ledger(state_database, clock, "one").begin("shop")
    ledger(state_database, clock, "one").begin("shop")


def test_a_dead_process_is_not_waited_for(state_database, clock, monkeypatch):
    """On the same machine it is seen that whoever held it is gone."""
    ledger(state_database, clock, "one").begin("shop")
    monkeypatch.setattr(os, "kill", _no_such_process)
    ledger(state_database, clock, "two").begin("shop")


def test_another_machine_s_process_is_waited_for(state_database, clock, monkeypatch):
    """A process id says nothing about another machine."""
    ledger(state_database, clock, "one").begin("shop")
    monkeypatch.setattr(os, "kill", _no_such_process)
    monkeypatch.setattr(ledger_module, "_host", lambda: "elsewhere")
    with pytest.raises(UpstreamBusyError):
        ledger(state_database, clock, "two").begin("shop")


def test_what_is_intended_is_remembered_until_it_is_gone(state_database, clock):
    """Every URL that may be registered, the id once it is known, the last problem."""
    one = ledger(state_database, clock, "one")
    one.begin("shop")
    one.intend(desired(), PLACE)
    entry = one.intend(desired("https://new.example/a"), PLACE)
    assert entry.is_intended
    assert entry.url_digests == (
        url_digest("https://hooks.example/a?token=visible"),
        url_digest("https://new.example/a"),
    )
    one.record_problem(entry, "it is down")
    assert one.entries("shop")[0].problem == "it is down"
    one.record(entry, "17", secret_digest="abc")
    (entry,) = one.entries()
    assert (entry.remote_id, entry.secret_digest, entry.problem) == ("17", "abc", None)
    assert entry.url_digests == (url_digest("https://new.example/a"),)
    assert one.registered_at(PLACE) == {"17": entry.id}
    assert entry.desired.marker == "shop/orders"
    one.forget(entry)
    assert one.entries() == []


def test_another_place_is_another_entry(state_database, clock):
    """What is to be registered elsewhere leaves what is there to be removed."""
    one = ledger(state_database, clock, "one")
    one.begin("shop")
    one.intend(desired(), PLACE)
    one.intend(desired(), "https://other.example/webhooks")
    assert [each.place for each in one.entries("shop")] == [PLACE, "https://other.example/webhooks"]


def test_a_secret_in_a_path_is_not_kept(state_database, clock):
    """The ledger knows a URL again without knowing it."""
    one = ledger(state_database, clock, "one")
    one.begin("shop")
    entry = one.intend(desired(), PLACE)
    assert "visible" not in repr(entry) + repr(desired())


def _no_such_process(_process, _signal):
    raise ProcessLookupError
