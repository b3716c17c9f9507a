"""JSON documents and JSON Lines, good, bad and hostile."""

from __future__ import annotations

import json
import tracemalloc
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.errors import BadPayloadError
from tasks.core.formats.records.budget import CHUNK_BYTES
from tasks.core.formats.records.formats import JsonFormat, JsonLinesFormat
from tasks.core.formats.records.reading import read_records
from tasks.core.formats.records.record import Record, Reject


def test_an_array_is_read_with_the_lines_of_its_records(read):
    """Each object of the array is a record at the line it starts at, numbers exact."""
    content = b'[\n {"sku": "007", "price": 19.90, "n": 1},\n\n {"sku": "x",\n "price": null}\n]\n'

    assert read(content, JsonFormat()) == [
        Record(2, {"sku": "007", "price": Decimal("19.90"), "n": 1}),
        Record(4, {"sku": "x", "price": None}),
    ]


@pytest.mark.parametrize(
    "content",
    [
        b'{"data": {"items": [{"a": 1}]}}',
        b'{"m": {"items": [7], "x": "]}"}, "data": {"n": [], "items": [{"a": 1}], "z": 2}}',
        b'\xef\xbb\xbf\n{ "data" : { "items" : [ { "a" : 1 } ] } }\n',
        '{"data":{"items":[{"a":1}]}}'.encode("utf-16"),
    ],
)
def test_records_are_found_under_a_path(read, content):
    """The record path leads through the keys of objects, whatever stands around them."""
    assert [r.values for r in read(content, JsonFormat(record_path="data/items"))] == [{"a": 1}]


def test_an_empty_array_has_no_records(read):
    """No records is no fault."""
    assert read(b" [ ] ", JsonFormat()) == []
    assert read(b'{"items": []}', JsonFormat(record_path="items")) == []


def test_elements_that_are_no_objects_are_rejected(read):
    """An element that is no object is rejected, and the others go on."""
    records = read(b'[1, {"a": 2}, [3], "x"]', JsonFormat())

    assert [type(record) for record in records] == [Reject, Record, Reject, Reject]
    assert records[0] == Reject(1, "", "is not a JSON object", {"value": 1})


def test_half_a_surrogate_pair_is_rejected(read):
    """An escape that makes a text nobody could write again rejects its record; others are text."""
    content = b'[{"a": "\\ud83d"}, {"a": "\\ud83d\\ude00 \\u00e9"}]'

    assert read(content, JsonFormat()) == [
        Reject(1, "", "holds half a surrogate pair, which is no character", {}),
        Record(1, {"a": "😀 é"}),
    ]


CUT = "; if it ends too early the transfer was cut: have the sender write it again"


@pytest.mark.parametrize(
    ("content", "path", "message"),
    [
        (b"", "", "the file is empty (0 bytes); have the sender write it again"),
        (
            b'{"items": []}',
            "",
            (
                "line 1: has no array at its top level; set record_path to the keys that lead to "
                "the array of records"
            ),
        ),
        (
            b'{"meta": 1,\n "data": {"lines": [{}]}}',
            "data/items",
            (
                "has no key 'items' at data, but 'lines'; set record_path to the keys that lead to "
                "the array of records"
            ),
        ),
        (
            b'{"data": {"items": {"a": 1}}}',
            "data/items",
            (
                "line 1: has no array at 'data/items'; set record_path to the keys that lead to "
                "the array of records"
            ),
        ),
        (b'[{"a": 1},\n{"a"', "", "line 2: is not JSON (expecting ':' delimiter)" + CUT),
        (b'[{"a": 1}\n{"a": 2}]', "", "line 2: is not JSON (expected ',' or ']')" + CUT),
        (b'[{"a": 1}', "", "line 1: is not JSON (expected ',' or ']')" + CUT),
        (b'[{"a": "x', "", "line 1: is not JSON (unterminated string starting)" + CUT),
        (b'[{"a": NaN}]', "", "line 1: is not JSON (a number is out of range)" + CUT),
        (b'[{"a": 1e999999999}]', "", "line 1: is not JSON (a number is out of range)" + CUT),
        (
            b'[{"a": 1e' + b"9" * 30 + b"}]",
            "",
            "line 1: is not JSON (a number is out of range)" + CUT,
        ),
        (b"[" + b"9" * 5000 + b"]", "", "line 1: is not JSON (a number is out of range)" + CUT),
        (b"[" * 100_000, "", "line 1: is nested too deeply" + CUT),
        (b"[]\n[]", "", "line 2: has text after its end" + CUT),
        (b'{"items": [], 7', "items", "line 1: has no key where one must be" + CUT),
        (
            b'[{"a": "\xff"}]',
            "",
            (
                "line 1: byte 0xff is not utf-8; ask which encoding the sender uses and set "
                "encoding to windows-1252 if it comes from a Windows program"
            ),
        ),
    ],
)
def test_documents_that_are_not_as_expected(refusal, content, path, message):
    """A document that is cut, malformed or shaped otherwise says where and what to do."""
    assert refusal(content, JsonFormat(record_path=path)) == message


def test_a_fault_early_in_a_long_file_is_told_by_its_own_line(refusal):
    """The fault is told, not that the rest of the file is longer than a record may be."""
    content = b'[{"a": 1},\n{"a": oops},\n' + b'{"a": 1},\n' * 200_000 + b"]"

    assert refusal(content, JsonFormat(max_record_bytes=1024)) == (
        "line 2: is not JSON (expecting value)" + CUT
    )


@pytest.mark.parametrize("options", [JsonFormat(), JsonLinesFormat()])
def test_a_record_that_never_ends_is_refused(refusal, options):
    """A value without end is refused when the limit was read, not when the file was."""
    content = (b"[" if options.kind == "json" else b"") + b'{"a": "' + b"x" * 20_000_000

    cause = "quote or bracket" if options.kind == "json" else "line break"

    assert refusal(content, options) == (
        "line 1: no record ends within 8,388,608 bytes from here; the cause may be a missing "
        f"{cause}, else raise max_record_bytes"
    )


def test_lines_are_read_and_bad_ones_rejected(read):
    """Each line is a record; one that is no object is rejected with its line and column."""
    content = b'{"a": 1.50}\r\n\n{"a": }\n[1]\n{"a": "\\ud800"}\n{"a": 2}'

    assert read(content, JsonLinesFormat()) == [
        Record(1, {"a": Decimal("1.50")}),
        Reject(3, "", "is not JSON (expecting value at column 7)", {"line": '{"a": }\n'}),
        Reject(4, "", "is not a JSON object", {"value": [1]}),
        Reject(5, "", "holds half a surrogate pair, which is no character", {}),
        Record(6, {"a": 2}),
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"a": Infinity}', "is not JSON (a number is out of range)"),
        (b'{"a": 1e999999999}', "is not JSON (a number is out of range)"),
        (b'{"a":' * 100_000, "is nested too deeply"),
    ],
)
def test_hostile_lines_are_rejected(read, line, reason):
    """Numbers that would take for ever to compute and endless nesting reject their line."""
    bad, good = read(line + b'\n{"a": 1}\n', JsonLinesFormat())

    assert (bad.line, bad.reason) == (1, reason)
    assert good == Record(2, {"a": 1})


@pytest.mark.parametrize("options", [JsonFormat(), JsonLinesFormat()])
def test_memory_does_not_grow_with_the_file(tmp_path, options):
    """Reading three times as many records takes no more memory."""

    def peak(rows: int) -> int:
        path = tmp_path / "big"
        texts = [json.dumps({"sku": f"{row:07d}", "quantity": row}) for row in range(rows)]
        path.write_text("[" + ",".join(texts) + "]" if options.kind == "json" else "\n".join(texts))
        del texts
        tracemalloc.start()
        count = sum(1 for _ in read_records(path, options, system="folder", name="big"))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert count == rows
        return peak

    peak(10)  # what is loaded once does not count
    assert peak(18_000) < 1.15 * peak(6_000)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=("Cs",))),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text('ab"\\{}[]', max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)
records = st.lists(st.dictionaries(st.sampled_from("abc"), values), max_size=4)


@given(written=records, path=st.sampled_from(["", "a", "a/b"]), indent=st.sampled_from([None, 1]))
def test_what_is_written_is_read(read, written, path, indent):
    """Any records survive, in a document at any path and as lines."""
    document = written
    for key in reversed([key for key in path.split("/") if key]):
        document = {"x": [1, {"y": "]"}], key: document, "z": {"a": []}}
    text = json.dumps(document, indent=indent, ensure_ascii=bool(indent))

    assert [r.values for r in read(text.encode(), JsonFormat(record_path=path))] == written
    lines = "\n".join(map(json.dumps, written)) or "\n"
    assert [r.values for r in read(lines.encode(), JsonLinesFormat())] == written


@pytest.mark.parametrize("cut", range(30))
def test_values_are_seen_across_chunks(read, cut):
    """A value that falls between two reads is whole, be it a number, a literal or an escape."""
    written = [{"n": 1234567}, {"t": True}, {"u": 'é"\\'}]
    pad = "x" * (CHUNK_BYTES - len('{"pad": "", ') - cut)
    document = {"pad": pad, "n": 1234567, "t": None, "items": written}

    records = read(json.dumps(document).encode(), JsonFormat(record_path="items"))

    assert [r.values for r in records] == written


@given(
    content=st.binary(max_size=200)
    | st.text('[]{}",:\\u01eE+- \nabntrfls', max_size=60).map(str.encode),
    options=st.sampled_from([JsonFormat(), JsonFormat(record_path="a"), JsonLinesFormat()]),
)
def test_any_bytes_are_read_or_refused(opened, content, options):
    """Whatever a file holds, reading it ends in records or in a BadPayloadError."""
    try:
        for record in opened(content, options):
            assert record.line >= 1
    except BadPayloadError:
        pass
