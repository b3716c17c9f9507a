"""The error tree."""

from __future__ import annotations

import pickle

import pytest

from blocks import errors

KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, errors.IntegrationError)
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_survives_pickling(kind):
    """Errors cross process borders with all they say."""
    error = kind("broken; mend it", system="sftp://host", operation="download", record="a.csv")
    for name in ("retry_after_s", "status", "line"):
        if hasattr(error, name):
            setattr(error, name, 7)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert vars(again) == vars(error)
    assert str(again) == "sftp://host: download 'a.csv': broken; mend it"


def test_only_transient_errors_may_be_retried():
    """Each kind is either transient or permanent, never both."""
    for kind in KINDS:
        if kind is not errors.IntegrationError:
            transient = issubclass(kind, errors.TransientError)
            assert transient != issubclass(kind, errors.PermanentError), kind


def test_the_docstring_draws_every_error():
    """The tree on top of the module is the tree."""
    for kind in KINDS:
        assert kind.__name__ in errors.__doc__
