"""What rows and messages hold is checked, sent in batches, and told when it is bad."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from pydantic import BaseModel, Field

from blocks.errors import UnreachableError, UpstreamRejectedError
from blocks.http_api import ApiKeyAuth, HttpApi
from tasks.api import open_api
from tasks.core.formats.records.formats import CsvFormat
from tasks.core.sync.batches.application_records import InventoryItem
from tasks.core.sync.batches.http_sink import HttpSink
from tasks.core.sync.batches.sink import Sent
from tasks.core.sync.record_import.importing import ImportItem, RecordImporter


class Item(BaseModel):
    sku: str = Field(min_length=1)
    quantity: int = Field(ge=0)
    price: Decimal | None = None


class Shelf:
    """An application in memory, which refuses what it is told to."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[str]]] = []
        self.refuses: set[str] = set()
        self.names_at_most = 1000
        self.fails = False

    def send(self, records, *, count, idempotency_key):
        found = [record["sku"] for record in json.loads(records)]
        if self.fails:
            raise UnreachableError("away", system="shelf", operation="send")
        details = tuple(
            {"index": index, "field": "sku", "reason": "unknown"}
            for index, sku in enumerate(found)
            if sku in self.refuses
        )
        if details:
            details = details[: self.names_at_most]
            raise UpstreamRejectedError("bad", system="shelf", operation="send", details=details)
        self.calls.append((idempotency_key, found))
        return Sent(created=count)


@pytest.fixture
def shelf():
    return Shelf()


def rows(*pairs):
    return [
        ImportItem(f"row {n}", f"id-{n}", {"sku": sku, "quantity": quantity})
        for n, (sku, quantity) in enumerate(pairs)
    ]


def importer(shelf, **options):
    return RecordImporter(shelf, Item, system="test", **options)


def test_good_entries_go_in_and_bad_ones_are_told_by_position(shelf):
    """Each bad entry has its column and reason; its neighbours are sent in batches."""
    taken = importer(shelf, batch_size=2).take(
        rows(("a", 1), ("b", -1), ("c", 3), ("d", 4), ("e", 5))
    )
    assert [skus for _, skus in shelf.calls] == [["a"], ["c", "d"], ["e"]]
    assert list(taken.bad) == [1]
    assert taken.bad[1].startswith("quantity: ")
    assert (taken.counts.records, taken.counts.created) == (4, 4)
    [reject] = taken.rejects
    assert (reject.id, reject.field) == ("row 1", "quantity")


def test_what_only_the_application_refuses_is_taken_out_and_the_rest_sent(shelf):
    """A refusal that names records refuses only these."""
    shelf.refuses = {"b"}
    taken = importer(shelf).take(rows(("a", 1), ("b", 2), ("c", 3)))
    assert [skus for _, skus in shelf.calls] == [["a", "c"]]
    assert taken.bad == {1: "sku: refused by the application: unknown"}


def test_an_application_that_names_one_bad_record_at_a_time_is_asked_until_it_takes_the_rest(shelf):
    """Each refusal takes out what it names, whatever it leaves unsaid."""
    shelf.refuses, shelf.names_at_most = {"b", "d"}, 1
    taken = importer(shelf).take(rows(("a", 1), ("b", 2), ("c", 3), ("d", 4)))
    assert [skus for _, skus in shelf.calls] == [["a", "c"]]
    assert (sorted(taken.bad), taken.counts.records) == ([1, 3], 2)


def test_a_refusal_that_names_none_is_an_error(shelf):
    """Without a record to blame nothing is dropped."""

    def refuse(*_, **__):
        raise UpstreamRejectedError("no", system="shelf", operation="send")

    shelf.send = refuse
    with pytest.raises(UpstreamRejectedError):
        importer(shelf).take(rows(("a", 1)))


def test_the_same_entries_have_the_same_key_and_others_another(shelf):
    """A repetition is known to the application; a later entry with equal content is not one."""
    take = importer(shelf).take
    for entries in (rows(("a", 1)), rows(("a", 1)), rows(("b", 1))):
        take(entries)
    take([ImportItem("row 9", "id-9", {"sku": "a", "quantity": 1})])
    keys = [key for key, _ in shelf.calls]
    assert keys[0] == keys[1]
    assert len({*keys}) == 3


def test_names_numbers_and_empty_texts_are_read_as_declared(shelf):
    """Columns are mapped, decimal commas read, and what stands for nothing is nothing."""
    shelf.send = lambda records, **_: shelf.calls.append(json.loads(records)) or Sent()
    entry = ImportItem("1", "1", {"Item": "a", "quantity": "1.234", "price": "NA"})
    importer(shelf, columns={"Item": "sku"}, decimal_comma=True, empty_texts=("NA",)).take([entry])
    assert shelf.calls == [[{"sku": "a", "quantity": 1234, "price": None}]]


@pytest.mark.parametrize(("content", "why"), [(b"{", "is not JSON"), (b"[1]", "no JSON object")])
def test_messages_that_are_no_objects_are_bad(shelf, content, why):
    """A message is one JSON object; anything else is told, and the next goes in."""
    taken = importer(shelf).take(
        [ImportItem("m1", "m1", content), ImportItem("m2", "m2", b'{"sku": "a", "quantity": 1}')]
    )
    assert why in taken.bad[0]
    assert [skus for _, skus in shelf.calls] == [["a"]]


def test_files_in_entries_go_through_the_readers(shelf):
    """Each entry's file is read by its name; its bad rows make it bad, and the others go in."""
    lines = b'{"sku":"d","quantity":-4}\n{"sku":"e","quantity":5}\n'
    taken = importer(shelf, holds_files=True, batch_size=2).take(
        [
            ImportItem("1 a.csv", "1", b"sku,quantity\na,1\nb,2\nc,3\n", "a.csv"),
            ImportItem("2 b.jsonl", "2", lines, "b.jsonl"),
            ImportItem("3 c.exe", "3", b"MZ", "c.exe"),
        ]
    )
    assert [skus for _, skus in shelf.calls] == [["a", "b"], ["c"], ["e"]]
    assert taken.bad[1].startswith("1 records imported, 1 not: line 1 quantity: ")
    assert "the name tells no format" in taken.bad[2]
    assert [(each.id, each.line) for each in taken.rejects] == [("2 b.jsonl", 1), ("3 c.exe", 0)]


def test_a_file_that_breaks_off_says_how_far_it_came(shelf):
    """What was read before the fault is in; the entry is bad and says so."""
    content = b"sku;quantity\na;1\nb;2\n\xff;3\n"
    taken = importer(
        shelf, holds_files=True, file_format=CsvFormat(delimiter=";", encoding="utf-8")
    ).take([ImportItem("1", "1", content)])
    assert "records imported" in taken.bad[0]
    assert "encoding" in taken.bad[0]


def test_an_application_that_is_away_is_an_error(shelf):
    """Nothing is bad then: the entries are to be taken again."""
    shelf.fails = True
    with pytest.raises(UnreachableError):
        importer(shelf).take(rows(("a", 1)))


def test_the_real_application_refuses_single_records_by_name(own_app):
    """Over its API, too: the too long name is told, the other record is in."""
    block = HttpApi(base_url=f"{own_app.base_url}/api/v1", auth=ApiKeyAuth(key=own_app.api_key))
    entries = [
        ImportItem("1", "1", {"sku": "1", "name": "One", "quantity": 1}),
        ImportItem("2", "2", {"sku": "2", "name": "far away " * 2000, "quantity": 2}),
    ]
    with open_api(block) as api:
        taken = RecordImporter(HttpSink(api, "inventory"), InventoryItem, system="test").take(
            entries
        )
    assert [record["sku"] for record in own_app.records("inventory")] == ["1"]
    assert list(taken.bad) == [1]
    assert "refused by the application" in taken.bad[1]
