"""What records are known by, and how instants are read and written."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from pydantic import ValidationError

from tasks.core.sync.api_import.source import IncrementalList
from tasks.core.sync.batches.result import RejectedRecord

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("instants", "written", "given"),
    [
        ("rfc3339", "2026-03-01T12:00:00Z", "2026-03-01T13:00:00+01:00"),
        ("rfc3339", "2026-03-01T12:00:00Z", "2026-03-01T12:00:00.000000999Z"),
        ("epoch_s", 1772366400, 1772366400),
        ("epoch_s", 1772366400, "1772366400"),
        ("epoch_ms", 1772366400000, 1772366400000),
    ],
)
def test_instants_go_both_ways(instants, written, given):
    """What the API writes is read as aware UTC; what it is asked for is in its own form."""
    listing = IncrementalList(path="orders", instants=instants)
    assert listing.written(NOON) == written
    assert listing.identify({"id": 1, "updated_at": given}).changed_at == NOON


def test_what_is_asked_for_is_never_later_than_the_instant():
    """Fractions that the form cannot hold are cut, in any zone."""
    later = (NOON + timedelta(seconds=0.999999)).astimezone(timezone(timedelta(hours=5)))
    assert IncrementalList(path="x", instants="epoch_s").written(later) == 1772366400
    assert IncrementalList(path="x", instants="epoch_ms").written(later) == 1772366400999
    assert IncrementalList(path="x").written(later) == "2026-03-01T12:00:00.999999Z"


def test_a_record_is_known_by_its_content_whatever_the_order_of_its_fields():
    """The same content has the same digest, another content another one."""
    listing = IncrementalList(path="orders")
    instant = "2026-03-01T12:00:00Z"
    first = listing.identify({"id": 1, "updated_at": instant, "total": 1})
    assert listing.identify({"total": 1, "updated_at": instant, "id": 1}) == first
    assert listing.identify({"id": 1, "updated_at": instant, "total": 2}).digest != first.digest


@pytest.mark.parametrize(
    ("record", "field"),
    [
        ("text", ""),
        ({"updated_at": "2026-03-01T12:00:00Z"}, "id"),
        ({"id": "", "updated_at": "2026-03-01T12:00:00Z"}, "id"),
        ({"id": True, "updated_at": "2026-03-01T12:00:00Z"}, "id"),
        ({"id": {"a": 1}, "updated_at": "2026-03-01T12:00:00Z"}, "id"),
        ({"id": 1}, "updated_at"),
        ({"id": 1, "updated_at": None}, "updated_at"),
        ({"id": 1, "updated_at": "2026-03-01T12:00:00"}, "updated_at"),
        ({"id": 1, "updated_at": 17}, "updated_at"),
        ({"id": 1, "updated_at": "9999-12-31T23:59:59-23:59"}, "updated_at"),
    ],
)
def test_what_cannot_be_known_is_rejected(record, field):
    """The reject names the field, and never the value."""
    reject = IncrementalList(path="orders").identify(record)
    assert isinstance(reject, RejectedRecord)
    assert reject.field == field


@pytest.mark.parametrize("value", [True, "noon", 10**30, float("nan"), None])
def test_what_is_no_epoch_is_rejected(value):
    """Flags, texts and numbers beyond all time."""
    listing = IncrementalList(path="orders", instants="epoch_s")
    assert isinstance(listing.identify({"id": 1, "updated_at": value}), RejectedRecord)


def test_a_long_identity_is_kept_by_its_digest():
    """Two of them that begin alike stay two."""
    listing = IncrementalList(path="orders")
    ids = {
        listing.identify({"id": "x" * 500 + tail, "updated_at": "2026-03-01T12:00:00Z"}).id
        for tail in "ab"
    }
    assert len(ids) == 2
    assert all(len(name) <= 200 for name in ids)


@pytest.mark.parametrize(
    "options",
    [
        {"slice_s": 60},
        {"slice_s": 60, "until_param": "until", "is_shifting": True},
        {"slice_s": 60, "until_param": "until", "pagination": {"kind": "page_number"}},
    ],
)
def test_slices_need_ends_and_pages_that_stay(options):
    """A list that cannot be cut says so when it is declared."""
    with pytest.raises(ValidationError, match="slices need until_param"):
        IncrementalList(path="orders", **options)
