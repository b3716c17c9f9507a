"""Sources are declared in YAML beside a flow; mistakes are told all at once."""

from __future__ import annotations

import pytest

from blocks.errors import MisconfiguredError
from deployments.services.listeners.declarations import (
    DeclaredSource,
    UnusableSource,
    declaration_files,
)

RABBIT = {
    "kind": "rabbitmq",
    "connection": {"host": "h", "username": "u", "password": "${RABBIT_PASSWORD}"},
    "queue": "q",
}


def test_a_secret_comes_from_the_environment_or_a_mounted_file(declare, tmp_path):
    """${NAME} is the variable NAME or what is in the file that NAME_FILE names."""
    [plain] = declare({"RABBIT_PASSWORD": "s3cret"}, a=RABBIT)
    (tmp_path / "secret").write_text("mounted\n")
    [mounted] = declare({"RABBIT_PASSWORD_FILE": str(tmp_path / "secret")}, a=RABBIT)
    assert plain.declaration.connection.password.get_secret_value() == "s3cret"
    assert mounted.declaration.connection.password.get_secret_value() == "mounted"
    assert "s3cret" not in repr(plain)


def test_a_source_that_lacks_a_variable_does_not_keep_others_from_being_listened_to(declare):
    """What only the operator can give makes one source unusable, and says what to set."""
    whole = {**RABBIT, "connection": {"host": "h", "username": "u", "password": "p"}}
    lacking, usable = declare({}, a=RABBIT, b=whole)
    assert isinstance(lacking, UnusableSource)
    assert "set RABBIT_PASSWORD" in lacking.reason
    assert isinstance(usable, DeclaredSource)


def test_every_mistake_is_told_at_once_without_its_value(declare):
    """A misspelt field, an unknown kind and a place that is none are one error with all three."""
    with pytest.raises(MisconfiguredError) as caught:
        declare(
            {"RABBIT_PASSWORD": "s3cret"},
            a={**RABBIT, "que": "x"},
            b={"kind": "pigeon"},
            c={**RABBIT, "event": "somewhere"},
        )
    told = str(caught.value)
    assert all(part in told for part in ("que: Extra", "pigeon", "'somewhere' is not a place"))
    assert "s3cret" not in told


def test_the_flows_own_declarations_are_found(declare):
    """Without further ado the files beside the flows are read."""
    assert all(file.name.endswith("sources.yaml") for file in declaration_files())
