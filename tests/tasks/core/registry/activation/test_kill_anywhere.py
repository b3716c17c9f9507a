"""An activation that is killed at any step, and run again."""

from __future__ import annotations

from tasks.core.registry.secrets.store import StoredSecrets
from tasks.core.state.database import open_database

ALL = ("repository", "orders", "contact-created")


def is_signed_with_what_is_stored(activations):
    engine = open_database(activations.database)
    try:
        secrets = StoredSecrets(engine, [activations.key])
        own_app = secrets.newest("shop-own-app")
        github = secrets.newest("shop-github")
    finally:
        engine.dispose()
    (hook,) = activations.github.hooks.hooks.values()
    return hook.config["secret"] == github.value and own_app is not None


def killed_at_each_step(activations, prepare, **options):
    """Yield after each kill; ends when nothing was left to be killed at."""
    at = 0
    while True:
        at += 1
        activations.fresh()
        del activations.declaration["registrations"]["opportunity-created"]
        prepare()
        if "killed" not in activations.run(kill_at=at, **options):
            assert at > 8
            return
        yield at


def test_a_first_activation(activations):
    """SIGKILL anywhere, then activated: each is registered once, with the secret that is stored."""
    for at in killed_at_each_step(activations, lambda: None):
        activations.became()
        assert activations.registered() == activations.expected(*ALL), at
        assert is_signed_with_what_is_stored(activations), at


def test_a_change_of_the_public_url(activations):
    """SIGKILL anywhere while it changes, then it changes once more: none is left behind."""

    def prepare():
        activations.run()
        activations.public_url = "https://new.example"

    for at in killed_at_each_step(activations, prepare):
        activations.public_url = "https://newest.example"
        activations.became()
        assert activations.registered() == activations.expected(*ALL), at
        assert is_signed_with_what_is_stored(activations), at


def test_a_first_activation_and_then_another_public_url(activations):
    """What a dead activation has registered under its URL is found under the next one's."""
    for at in killed_at_each_step(activations, lambda: None):
        activations.public_url = "https://new.example"
        activations.became()
        assert activations.registered() == activations.expected(*ALL), at


def test_an_endpoint_that_goes(activations):
    """SIGKILL anywhere while registrations are removed, then once more: they are gone."""

    def prepare():
        activations.run()
        for name in ("repository", "contact-created"):
            del activations.declaration["registrations"][name]

    for at in killed_at_each_step(activations, prepare):
        activations.became()
        assert activations.registered() == activations.expected("orders"), at


def test_a_deactivation(activations):
    """SIGKILL anywhere in a first activation, then deactivated: nothing of ours is left."""
    for at in killed_at_each_step(activations, lambda: None):
        activations.became(deactivate=True)
        assert activations.registered() == activations.expected(), at
