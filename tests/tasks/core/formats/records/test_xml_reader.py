"""XML documents, good, bad and hostile."""

from __future__ import annotations

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from blocks.errors import BadPayloadError
from tasks.core.formats.records.formats import XmlFormat
from tasks.core.formats.records.reading import read_records
from tasks.core.formats.records.record import Record, Reject

CATALOG = b"""<?xml version="1.0"?>
<catalog date="today">
  <!-- of today -->
  <item id="7">
    <sku>007</sku><price currency="EUR"><amount>1.50</amount></price>
    <note/>
  </item>
  <?order again?>
  <item id="8"><sku> x </sku><note><![CDATA[a < b]]> &amp; c</note></item>
</catalog>
"""
ITEMS = [
    Record(
        4,
        {"@id": "7", "sku": "007", "price/@currency": "EUR", "price/amount": "1.50", "note": ""},
    ),
    Record(9, {"@id": "8", "sku": " x ", "note": "a < b & c"}),
]
DTD_REFUSED = (
    "declares a document type (DTD) or entities, which are refused because they can read files "
    "and exhaust the memory; have the sender write plain XML without <!DOCTYPE>"
)


@pytest.mark.parametrize("path", ["", "catalog/item"])
def test_values_are_keyed_by_path(read, path):
    """Texts and attributes of a record are keyed by path, with the line the record starts at."""
    assert read(CATALOG, XmlFormat(record_path=path)) == ITEMS


def test_only_elements_at_the_path_are_records(read):
    """Elements of the same name elsewhere, even inside a record, are none."""
    content = b"""<r><item><sku>0</sku></item>
        <g><item><sku>1</sku><part><item>2</item></part></item></g><g><other/><item><sku>3</sku></item></g></r>"""

    assert [r.values for r in read(content, XmlFormat(record_path="r/g/item"))] == [
        {"sku": "1", "part/item": "2"},
        {"sku": "3"},
    ]


NAMESPACES = b"""<c:catalog xmlns:c="urn:c" xmlns="urn:d" xmlns:x="urn:x">
<c:item x:id="1"><sku>7</sku><c:sku>8</c:sku></c:item><item><sku>9</sku></item></c:catalog>"""


def test_names_without_prefix_stand_for_any_namespace(read):
    """Without namespaces in the options, namespaces in the file do not matter."""
    content = b'<catalog xmlns="urn:d"><item a="1"><sku>9</sku></item></catalog>'

    assert read(content, XmlFormat(record_path="catalog/item")) == [
        Record(1, {"@a": "1", "sku": "9"})
    ]


def test_listed_namespaces_are_told_apart(read):
    """With a namespace listed, its names carry the prefix of the options, not of the file."""
    options = XmlFormat(record_path="a:catalog/a:item", namespaces={"a": "urn:c", "b": "urn:x"})

    assert read(NAMESPACES, options) == [Record(2, {"@b:id": "1", "sku": "7", "a:sku": "8"})]


def test_repeated_elements_become_lists(read):
    """Paths listed as repeated are lists of texts, or of records where they have parts."""
    content = b"""<orders xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
      <order><no>1</no><tag>a</tag><tag>b</tag>
      <lines><line n="1"><sku>x</sku></line><line><sku>y</sku><q>2</q></line></lines></order>
      <order><no>2</no><tag n="0">c</tag><tag xsi:nil="1"/><tag/></order></orders>"""

    first, second = read(content, XmlFormat(repeated=("tag", "lines/line")))

    assert first.values == {
        "no": "1",
        "tag": ["a", "b"],
        "lines/line": [{"@n": "1", "sku": "x"}, {"sku": "y", "q": "2"}],
    }
    assert second.values == {"no": "2", "tag": [{"@n": "0", ".": "c"}, None, ""]}


def test_unexpected_repetition_of_attributes_rejects_the_record(read):
    """Attributes of an element that occurs twice are not silently overwritten either."""
    (bad,) = read(b'<r><i><a x="1"><b/></a><a x="2"><c/></a></i></r>', XmlFormat())

    assert (type(bad), bad.column) == (Reject, "a/@x")


def test_unexpected_repetition_rejects_the_record(read):
    """An element that occurs twice without being listed is not silently dropped."""
    bad, good = read(b"<r><i><a><b>1</b></a><a><b>2</b></a></i><i><a>3</a></i></r>", XmlFormat())

    assert bad == Reject(
        1,
        "a/b",
        "occurs more than once; list it, or an element around it, in repeated if that is meant",
        {"a/b": "1"},
    )
    assert good == Record(1, {"a": "3"})


def test_a_record_may_be_a_single_text(read):
    """The text of a record without parts is keyed by a dot, and nil is None."""
    content = (
        b'<r xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">'
        b'<i u="kg">5</i><i><a xsi:nil="true"/></i></r>'
    )

    assert [r.values for r in read(content, XmlFormat())] == [{"@u": "kg", ".": "5"}, {"a": None}]


@pytest.mark.parametrize(
    "text",
    [
        "<?xml version='1.0' encoding='windows-1252'?><r><i><a>Müller</a></i></r>",
        "<?xml version='1.0' encoding='utf-16'?><r><i><a>Müller</a></i></r>",
    ],
)
def test_the_declared_encoding_is_used(read, text):
    """The encoding is the one the document declares."""
    content = text.encode(text.split("'")[3])

    assert read(content, XmlFormat()) == [Record(1, {"a": "Müller"})]


def test_a_document_without_records_is_no_fault(read):
    """An empty list of records is read as such, where its parent is there."""
    assert read(b"<catalog/>", XmlFormat(record_path="catalog/item")) == []
    assert read(b"<a><b/></a>", XmlFormat(record_path="a/b/item")) == []


BOMB = (
    b'<!DOCTYPE r [<!ENTITY a "ha">'
    + b"".join(b'<!ENTITY %c "%s">' % (name, b"&%c;" % (name - 1) * 10) for name in b"bcdefghij")
    + b"]>"
)


@pytest.mark.parametrize(
    "content",
    [
        BOMB + b"<r><i><a>&j;</a></i></r>",
        BOMB + b'<r><i a="&j;"/></r>',
        BOMB + b"<r/>",
        b'<!DOCTYPE r [<!ENTITY x SYSTEM "file:///etc/passwd">]><r><i><a>&x;</a></i></r>',
        b'<!DOCTYPE r SYSTEM "http://127.0.0.1:1/r.dtd"><r><i><a>1</a></i></r>',
        b'<!DOCTYPE r [<!ENTITY % p SYSTEM "file:///etc/passwd"> %p;]><r><i>1</i></r>',
        b"<!DOCTYPE html><html><body/></html>",
    ],
    ids=["bomb", "bomb in attribute", "unused", "file", "dtd", "parameter", "html"],
)
def test_entities_and_dtds_are_refused(refusal, content):
    """XML bombs, files pulled in by entities and DTDs are refused before any record."""
    assert refusal(content, XmlFormat()) == DTD_REFUSED


BROKEN = "; if it ends too early the transfer was cut: have the sender write it again"


@pytest.mark.parametrize(
    ("content", "path", "message"),
    [
        (b"", "", "the file is empty (0 bytes); have the sender write it again"),
        (
            b"<r>\n<i><a>1</a></i>\n<i><a>",
            "",
            "line 3: is not well-formed XML (Premature end of data in tag a line 3)" + BROKEN,
        ),
        (
            b"<r>\n<i><a>1</b></i></r>",
            "",
            "line 2: is not well-formed XML (Opening and ending tag mismatch: a line 2 and b)"
            + BROKEN,
        ),
        (
            b"<r><i>&nbsp;</i></r>",
            "",
            "line 1: is not well-formed XML (Entity 'nbsp' not defined)" + BROKEN,
        ),
        (
            b"sku,name\n",
            "",
            "line 1: is not well-formed XML (Start tag expected, '<' not found)" + BROKEN,
        ),
        (
            b"<r>\n<i>\xff</i></r>",
            "",
            "line 2: is not well-formed XML (Invalid bytes in character encoding)" + BROKEN,
        ),
        (
            b"<list><item/></list>",
            "catalog/item",
            (
                "line 1: has no element at 'catalog/item'; its root is 'list'; set record_path to "
                "the path of the elements that are records, with the root first"
            ),
        ),
    ],
)
def test_documents_that_cannot_be_read(refusal, content, path, message):
    """A document that is cut, malformed or shaped otherwise says where and what to do."""
    assert refusal(content, XmlFormat(record_path=path)) == message


@pytest.mark.parametrize(
    "content",
    [
        b"<r><i><a>" + b"x" * 2_000_000 + b"</a></i></r>",
        b"<r><i>" + b"<a>1</a>" * 200_000 + b"</i></r>",
        b"<r><!--" + b"x" * 2_000_000 + b"--></r>",
    ],
    ids=["text", "children", "comment"],
)
def test_a_record_that_never_ends_is_refused(refusal, content):
    """A record without end is refused when the limit was read, not when the file was."""
    assert refusal(content, XmlFormat(max_record_bytes=1024 * 1024)) == (
        "line 1: no record ends within 1,048,576 bytes from here; the cause may be a missing "
        "closing tag or another record_path, else raise max_record_bytes"
    )


def test_memory_does_not_grow_with_the_file(tmp_path):
    """Records and the elements around them are given back as they are read."""
    path = tmp_path / "big.xml"
    with path.open("w") as file:
        file.write("<c>")
        file.writelines(f"<g><i><sku>{row:07d}</sku></i><x/></g>\n" for row in range(60_000))
        file.write("</c>")
    records = read_records(path, XmlFormat(record_path="c/g/i"), system="folder", name="big.xml")
    process = psutil.Process()
    rss = []
    for count, record in enumerate(records, 1):
        assert record.line == count
        if count % 10_000 == 0:
            rss.append(process.memory_info().rss)

    assert len(rss) == 6
    assert rss[-1] - rss[0] < 5 * 1024 * 1024  # the elements kept would take 30 MB


def test_prefixes_must_be_listed():
    """A path with a prefix that stands for nothing is refused in the form."""
    with pytest.raises(ValidationError, match="the prefix 'c' is not listed"):
        XmlFormat(record_path="c:catalog/item")


@given(
    content=st.binary(max_size=200) | st.text("<>/ri&;!-[]\"'= a?x", max_size=60).map(str.encode),
    path=st.sampled_from(["", "r/i", "r"]),
)
def test_any_bytes_are_read_or_refused(opened, content, path):
    """Whatever a file holds, reading it ends in records or in a BadPayloadError."""
    try:
        for record in opened(content, XmlFormat(record_path=path)):
            assert record.line >= 1
    except BadPayloadError:
        pass
