"""Flows complete their nested settings from their own defaults, and know former names."""

from __future__ import annotations

import pytest
from prefect.exceptions import ParameterTypeError

from flows.file_import.flow import file_import
from flows.price_quote.flow import price_quote
from tasks.core.intake.inbox.consumer import ConsumerSettings
from tasks.request_reply import REPLYING


def test_one_setting_leaves_the_flows_own_defaults():
    """A deployment that says how long a run stays does not lose how soon it retries."""
    given = price_quote.validate_parameters({"consumer": {"idle_timeout_s": 10}})
    assert given["consumer"].idle_timeout_s == 10
    assert given["consumer"].advanced.max_retry_s == 10
    assert given["consumer"].advanced == REPLYING.advanced


def test_one_setting_of_the_advanced_ones_leaves_the_others():
    """Merging goes as deep as the settings do."""
    given = price_quote.validate_parameters({"consumer": {"advanced": {"lease_s": 99}}})
    assert given["consumer"].max_attempts == REPLYING.max_attempts
    assert given["consumer"].advanced == REPLYING.advanced.model_copy(update={"lease_s": 99})


def test_a_form_that_sends_everything_means_what_it_shows():
    """The defaults that the run form shows are those of the flow, and come back as they are."""
    shown = price_quote.parameters.properties["consumer"]["default"]
    assert shown == REPLYING.model_dump()
    other = shown | {"idle_timeout_s": 1.0}
    given = price_quote.validate_parameters({"consumer": other})
    assert given["consumer"] == REPLYING.model_copy(update={"idle_timeout_s": 1.0})


def test_saved_parameters_keep_working_under_their_former_names():
    """Deployments of former versions start runs until they are deployed anew."""
    former = {"draining": {"linger_s": 4, "stand_by": True, "max_drains": 1, "concurrency": 7}}
    expected = ConsumerSettings(
        concurrency=7, idle_timeout_s=4, advanced={"keep_warm": True, "max_runs": 1}
    )
    given = price_quote.validate_parameters(former)["consumer"]
    assert given.model_dump(include={"concurrency", "idle_timeout_s"}) == {
        "concurrency": 7,
        "idle_timeout_s": 4,
    }
    assert given.advanced.keep_warm
    assert given.advanced.max_runs == 1
    assert ConsumerSettings.model_validate(former["draining"]) == expected
    files = {"pick_up": {"include": ["*.csv"]}, "put_away": {"on_success": "delete"}}
    given = file_import.validate_parameters(files | {"source": "a/b", "record_type": "orders"})
    assert given["selection"].include == ["*.csv"]
    assert given["after_import"].on_success == "delete"


def test_both_names_at_once_are_refused():
    """Nobody can say which of two values is meant."""
    with pytest.raises((ParameterTypeError, ValueError), match="draining is the former name"):
        price_quote.validate_parameters({"draining": {}, "consumer": {}})
