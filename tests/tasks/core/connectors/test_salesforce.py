"""Salesforce's records by id, from the stand-in's REST API."""

from __future__ import annotations

import pytest

from blocks.errors import (
    BadPayloadError,
    MisconfiguredError,
    UpstreamBusyError,
    UpstreamRejectedError,
)
from tasks.api import open_api
from tasks.core.connectors.salesforce import Fetched, checked_id, fetch_by_id


@pytest.fixture
def api(salesforce):
    """A client with one attempt a call."""
    with open_api(salesforce.block(max_attempts=1)) as client:
        yield client


def ids_of(salesforce, count):
    return [salesforce.records.create("Contact", LastName=f"n{n}") for n in range(count)]


def test_many_records_are_one_call(api, salesforce):
    """Each id has its record, in whatever order."""
    ids = ids_of(salesforce, 200)
    found = fetch_by_id(api, "Contact", ["Id", "LastName"], ids[::-1])
    assert [found[id_].record["LastName"] for id_ in ids] == [f"n{n}" for n in range(200)]
    assert salesforce.requests == ["POST /composite/sobjects/Contact"]


def test_missing_records_cost_one_more_call(api, salesforce):
    """It tells the deleted from those that cannot be seen, page by page."""
    ids = ids_of(salesforce, 6)
    for id_ in ids[:4]:
        salesforce.records.delete("Contact", id_)
    salesforce.records.delete("Contact", ids[4], purge=True)
    salesforce.page_size = 3
    found = fetch_by_id(api, "Contact", ["Id"], ids)
    assert [found[id_] for id_ in ids[:5]] == [Fetched(None, is_deleted=True)] * 4 + [Fetched(None)]
    assert found[ids[5]].record["Id"] == ids[5]
    assert salesforce.requests[:2] == ["POST /composite/sobjects/Contact", "GET /queryAll"]
    assert [line.startswith("GET /query/") for line in salesforce.requests[2:]] == [True]


def test_a_token_that_ended_is_renewed(api, salesforce):
    """Salesforce ends sessions as it likes; nobody notices."""
    ids = ids_of(salesforce, 1)
    fetch_by_id(api, "Contact", ["Id"], ids)
    salesforce.expire_tokens()
    assert fetch_by_id(api, "Contact", ["Id"], ids)[ids[0]].record


def test_a_spent_allowance_may_pass(api, salesforce):
    """REQUEST_LIMIT_EXCEEDED comes as 403 and is no missing permission."""
    ids = ids_of(salesforce, 1)
    salesforce.max_api_calls = 0
    with pytest.raises(UpstreamBusyError):
        fetch_by_id(api, "Contact", ["Id"], ids)


def test_a_wrong_secret_is_misconfigured(salesforce):
    """The block is named, not the secret."""
    block = salesforce.block(max_attempts=1)
    block.auth.client_secret = type(block.auth.client_secret)("wrong")
    with open_api(block) as api, pytest.raises(MisconfiguredError, match="invalid_client"):
        fetch_by_id(api, "Contact", ["Id"], ["003000000000001AAA"])


def test_an_unknown_field_is_ours_to_mend(api, salesforce):
    """No id is at fault: nobody needs to ask again with fewer of them."""
    salesforce.has_currencies = False
    ids = ids_of(salesforce, 2)
    with pytest.raises(MisconfiguredError, match="No such column 'CurrencyIsoCode'"):
        fetch_by_id(api, "Contact", ["Id", "CurrencyIsoCode"], ids)


def test_too_many_ids_are_refused(api):
    """As Salesforce does."""
    with pytest.raises(UpstreamRejectedError):
        fetch_by_id(api, "Contact", [], ["003000000000001AAA"])


@pytest.mark.parametrize("value", [None, 1, "", "003", "003000000000001'); --", "0" * 17])
def test_what_is_no_id_reaches_no_query(value):
    """It comes from outside and goes into SOQL."""
    with pytest.raises(BadPayloadError):
        checked_id(value, record="d1")
    assert checked_id("003000000000001AAA", record="d1") == "003000000000001AAA"
