"""CSV files as partners send them, good and bad."""

from __future__ import annotations

import csv
import io
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from blocks.errors import BadPayloadError
from tasks.core.formats.records.budget import CHUNK_BYTES
from tasks.core.formats.records.formats import CsvFormat
from tasks.core.formats.records.reading import read_records
from tasks.core.formats.records.record import Record, Reject

MIB = 1024 * 1024


def test_values_stay_the_text_they_are(read):
    """Every value is text as it stands: leading zeros, spaces and decimal commas are kept."""
    records = read(b'sku,name,price\n007, Nut ,"1,50"\n', CsvFormat())

    assert records == [Record(2, {"sku": "007", "name": " Nut ", "price": "1,50"})]


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_a_record_has_the_line_it_starts_at(read, line_end):
    """Line breaks in quotes and blank lines count: the line is the one an editor shows."""
    text = line_end.join(["sku,name", "", '1,"two', 'lines"', "  ", "2,x", ",", "3,y"])

    records = read(text.encode(), CsvFormat())

    assert [(record.line, record.values["sku"]) for record in records] == [
        (3, "1"),
        (6, "2"),
        (8, "3"),
    ]
    assert records[0].values["name"] == f"two{line_end}lines"


@pytest.mark.parametrize("end", [-1, 0, 1, 2])
def test_line_ends_are_seen_across_chunks(read, end):
    """A CR LF that falls between two reads is one line end."""
    first = "1," + "x" * (CHUNK_BYTES + end - len("sku,name\r\n1,\r\n"))

    records = read(f"sku,name\r\n{first}\r\n2,y\r\n".encode(), CsvFormat())

    assert [(r.line, r.values["sku"], r.values["name"][-1]) for r in records] == [
        (2, "1", "x"),
        (3, "2", "y"),
    ]


@pytest.mark.parametrize(
    ("encoding", "option"),
    [
        ("utf-8", "auto"),
        ("utf-8-sig", "auto"),
        ("utf-8-sig", "utf-8"),
        ("utf-16", "auto"),
        ("utf-16", "utf-16"),
        ("utf-16-le", "utf-16-le"),
        ("utf-32", "auto"),
        ("windows-1252", "windows-1252"),
        ("latin-1", "iso-8859-1"),
    ],
)
def test_encodings(read, encoding, option):
    """A byte-order mark or the option says the encoding, and the mark is no part of the header."""
    text = "sku;name\n1;Müller & Søn\n"

    assert read(text.encode(encoding), CsvFormat(encoding=option)) == [
        Record(2, {"sku": "1", "name": "Müller & Søn"})
    ]


@pytest.mark.parametrize(
    ("content", "option", "message"),
    [
        (
            "sku,name\n1,x\n2,Müller\n".encode("windows-1252"),
            "auto",
            (
                "line 3: byte 0xfc is not utf-8; ask which encoding the sender uses and set "
                "encoding to windows-1252 if it comes from a Windows program"
            ),
        ),
        (
            b"sku,name\n1,\x81\n",
            "windows-1252",
            (
                "line 2: byte 0x81 is not cp1252; ask which encoding the sender uses and set "
                "encoding to that or auto"
            ),
        ),
        (
            b"\xef\xbb\xbfsku,name\n",
            "windows-1252",
            (
                "begins with the byte-order mark of utf-8, but encoding is set to windows-1252; "
                "set it to auto"
            ),
        ),
        (
            "sku,name\n1,x\n".encode("utf-16-le"),
            "auto",
            (
                "line 1: holds a NUL character, so it is no text in utf-8; if the sender writes "
                "UTF-16, set encoding to utf-16-le or utf-16-be, else it is another kind of file"
            ),
        ),
        (
            "sku,name\n".encode("utf-16-le"),
            "utf-16",
            (
                "has no byte-order mark, so utf-16 says too little; set encoding to utf-16-le or "
                "utf-16-be"
            ),
        ),
        (
            b"\xff\xfes\x00k\x00u",
            "auto",
            (
                "line 1: byte 0x75 is not utf-16-le; ask which encoding the sender uses and set "
                "encoding to that or auto"
            ),
        ),
        (
            b"sku,name\n1,a\n2,a\0b\n",
            "auto",
            (
                "line 3: holds a NUL character, so it is no text in utf-8; if the sender writes "
                "UTF-16, set encoding to utf-16-le or utf-16-be, else it is another kind of file"
            ),
        ),
    ],
)
def test_wrong_encoding_is_never_guessed(refusal, content, option, message):
    """Bytes that are not in the encoding are refused with the line and what to set."""
    assert refusal(content, CsvFormat(encoding=option)) == message


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_the_one_that_cuts_the_header(read, delimiter):
    """Other delimiters in quotes or in the rows do not mislead the search for the delimiter."""
    text = f'sku{delimiter}"a,b;c|d\te"{delimiter}price\n1{delimiter}x{delimiter}1,50;2,50;3\n'
    if delimiter in ",;":
        text = text.replace("1,50;2,50;3", "1|2|3|4")

    (record,) = read(text.encode(), CsvFormat())

    assert list(record.values) == ["sku", "a,b;c|d e", "price"]


def test_an_ambiguous_delimiter_is_asked_for(refusal, read):
    """A header that two delimiters cut equally well is refused until the delimiter is set."""
    content = b"a;b,c\n1;2,3\n"

    assert refusal(content, CsvFormat()) == (
        "line 1: the header can be cut into 2 columns at ',' and at ';'; set delimiter to the "
        "right one"
    )
    assert read(content, CsvFormat(delimiter=";")) == [Record(2, {"a": "1", "b,c": "2,3"})]


def test_one_column_needs_no_delimiter(read):
    """A file of one column without any delimiter is read."""
    assert read(b"sku\n007\n", CsvFormat()) == [Record(2, {"sku": "007"})]


def test_the_last_line_needs_no_line_end(read):
    """A file that is one line without an end is a header without records."""
    assert read(b"sku;name", CsvFormat()) == []
    assert read(b"sku;name\n1;x", CsvFormat()) == [Record(2, {"sku": "1", "name": "x"})]


def test_tab_can_be_typed(read):
    """The form takes the word tab for a character that cannot be typed there."""
    assert read(b"a\tb\n1\t2\n", CsvFormat(delimiter="tab")) == [Record(2, {"a": "1", "b": "2"})]


def test_quotes_and_escapes_can_be_others(read):
    """Quote and escape characters are the sender's, and quotes may mean nothing at all."""
    assert read(b"a,b\n'x,y',z\n", CsvFormat(quote_char="'"))[0].values["a"] == "x,y"
    assert read(b'a,b\n"x\\"y",z\n', CsvFormat(escape_char="\\"))[0].values["a"] == 'x"y'
    assert read(b'a,b\n5" pipe,z\n"x,y\n', CsvFormat(quote_char=None))[1].values["a"] == '"x'


def test_lines_above_the_header_are_skipped(read):
    """With header_row the lines above are ignored, odd quotes and all, and lines still count."""
    content = b'Report "of today\ncreated: now\nsku,name\n1,x\n'

    assert read(content, CsvFormat(header_row=3)) == [Record(4, {"sku": "1", "name": "x"})]


def test_a_file_without_header_gets_its_columns_from_the_options(read):
    """With header_row 0 the first line is a record."""
    options = CsvFormat(header_row=0, columns=("sku", "name"))

    assert read(b"1,x\n", options) == [Record(1, {"sku": "1", "name": "x"})]


def test_columns_are_trimmed_and_the_unnamed_numbered(read):
    """White space around names goes, and a column without a name is called by its place."""
    assert read(b" sku ,unit\tprice ,\n1,2,3\n", CsvFormat(delimiter=",")) == [
        Record(2, {"sku": "1", "unit price": "2", "column 3": "3"})
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty (0 bytes); have the sender write it again"),
        (
            b"\n  \n\n",
            (
                "has no header: nothing is written from line 1 on; set header_row to the line that "
                "holds the column names"
            ),
        ),
        (
            b"\nsku,name,SKU \n1,x,2\n",
            (
                "line 2: the header names 'SKU' twice, as column 1 and as column 3; have the "
                "sender name each column once"
            ),
        ),
        (
            b'sku,name\n1,"x\n2,y\n3,z\n',
            (
                "line 2: a quote in the record that begins here is never closed, so the rest of "
                "the file cannot be read; have the sender close or double it, or set quote_char "
                "to none if quotes have no meaning"
            ),
        ),
        (
            b'"sku"x,name\n',
            (
                "line 1: the header is not well quoted (',' expected after '\"'); check quote_char "
                "and header_row"
            ),
        ),
    ],
)
def test_files_that_are_no_table(refusal, content, message):
    """An empty file, a missing or doubled header and an open quote say what to do."""
    assert refusal(content, CsvFormat()) == message


def test_a_line_that_never_ends_is_refused_in_bounded_memory(tmp_path):
    """A single line of 200 MB is refused after the limit was read, not after the whole line."""
    path = tmp_path / "endless.csv"
    with path.open("wb") as file:
        file.write(b"sku,name\n1,x\n2,")
        for _ in range(200):
            file.write(b"y" * MIB)
    tracemalloc.start()
    try:
        with pytest.raises(BadPayloadError) as raised:
            list(read_records(path, CsvFormat(), system="folder", name="endless.csv"))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert str(raised.value) == (
        "folder: read 'endless.csv': line 3: no record ends within 1,048,576 bytes from here; the "
        "cause may be a missing line break or closing quote, else raise max_record_bytes"
    )
    assert peak < 12 * MIB


def test_an_open_quote_cannot_fill_the_memory(refusal):
    """A record that grows line by line and cell by cell is refused at the same limit."""
    content = b'sku,name\n1,"x\n' + b'","\n' * 300_000

    assert refusal(content, CsvFormat()).startswith(
        "line 2: no record ends within 1,048,576 bytes from here"
    )


def test_a_long_value_within_the_limit_is_read(read):
    """Values larger than the csv module's own limit of 128 KiB are no fault."""
    (record,) = read(b"sku,text\n1," + b"x" * 900_000, CsvFormat())

    assert len(record.values["text"]) == 900_000


def test_rows_of_another_width_are_rejected(read):
    """Too many or too few cells reject the row, with what was read, and the others go on."""
    records = read(b"sku,name\n1\n2,x,y\n3,z\n", CsvFormat())

    assert records == [
        Reject(2, "", "has 1 cells where the header has 2", {"sku": "1"}),
        Reject(
            3,
            "",
            "has 3 cells where the header has 2",
            {"sku": "2", "name": "x", "column 3": "y"},
        ),
        Record(4, {"sku": "3", "name": "z"}),
    ]


def test_a_badly_quoted_row_is_rejected(read):
    """Text after a closing quote rejects its row alone."""
    rejected, record = read(b'sku,name\n1,"x"y\n2,z\n', CsvFormat())

    assert (rejected.line, rejected.reason) == (
        2,
        "is not well quoted (',' expected after '\"'); a quote inside quotes is doubled",
    )
    assert record == Record(3, {"sku": "2", "name": "z"})


def test_memory_does_not_grow_with_the_file(tmp_path):
    """Reading three times as many rows takes no more memory."""

    def peak(rows: int) -> int:
        path = tmp_path / f"{rows}.csv"
        with path.open("w") as file:
            file.write("sku,name,quantity\n")
            file.writelines(f"{row:07d},Widget,{row}\n" for row in range(rows))
        tracemalloc.start()
        count = sum(1 for _ in read_records(path, CsvFormat(), system="folder", name="big.csv"))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert count == rows
        return peak

    peak(10)  # what is loaded once does not count
    assert peak(45_000) < 1.15 * peak(15_000)


@pytest.mark.parametrize(
    "options",
    [
        {"encoding": "klingon"},
        {"encoding": "base64"},
        {"delimiter": ";;"},
        {"delimiter": '"'},
        {"quote_char": "auto"},
        {"header_row": 0},
        {"columns": ["sku"]},
    ],
)
def test_options_that_cannot_be_meant_are_refused(options):
    """A wrong option is refused in the form, before any file is read."""
    with pytest.raises(ValidationError):
        CsvFormat(**options)


cells = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=8)


@given(
    table=st.integers(1, 4).flatmap(
        lambda width: st.lists(st.lists(cells, min_size=width, max_size=width), max_size=5)
    ),
    delimiter=st.sampled_from(",;\t|^"),
    quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
    line_end=st.sampled_from(["\n", "\r\n"]),
    encoding=st.sampled_from(["utf-8", "utf-16", "utf-8-sig"]),
)
def test_what_is_written_is_read(read, table, delimiter, quoting, line_end, encoding):
    """Any text survives any delimiter, quoting, line end and encoding."""
    if quoting == csv.QUOTE_MINIMAL:  # older writers leave a CR, which ends a line, unquoted
        table = [[cell.replace("\r", "") for cell in row] for row in table]
    width = len(table[0]) if table else 1
    columns = [f"c{place}" for place in range(width)]
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, quoting=quoting, lineterminator=line_end)
    writer.writerows([columns, *table])

    records = read(text.getvalue().encode(encoding), CsvFormat(delimiter=delimiter))

    written = [row for row in table if any(row)]
    assert [list(record.values.values()) for record in records] == written


@given(content=st.binary(max_size=300), header=st.sampled_from([b"", b"a,b\n", b'"a";b\n']))
def test_any_bytes_are_read_or_refused(opened, content, header):
    """Whatever a file holds, reading it ends in records or in a BadPayloadError."""
    try:
        for record in opened(header + content, CsvFormat()):
            assert record.line >= 1
    except BadPayloadError:
        pass
