"""One function reads every format."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest
from pydantic import TypeAdapter

from blocks.errors import BadPayloadError
from tasks.core.formats.records.formats import (
    CsvFormat,
    FileFormat,
    JsonFormat,
    JsonLinesFormat,
    PdfFormat,
    XlsxFormat,
    XmlFormat,
)
from tasks.core.formats.records.reading import detect_format, read_records
from tasks.core.formats.records.record import Record


@pytest.mark.parametrize(
    ("name", "file_format"),
    [
        ("stock.csv", CsvFormat()),
        ("in/STOCK.CSV.GZ", CsvFormat()),
        ("stock.csv.zip", CsvFormat()),
        ("stock.tsv", CsvFormat(delimiter="\t")),
        ("stock.2026.xml", XmlFormat()),
        ("stock.json", JsonFormat()),
        ("stock.jsonl", JsonLinesFormat()),
        ("stock.ndjson.gz", JsonLinesFormat()),
        ("stock.xlsx", XlsxFormat()),
        ("stock.pdf", PdfFormat()),
    ],
)
def test_the_name_tells_the_format(name, file_format):
    """The extension decides, in any letter case, and packing is looked through."""
    assert detect_format(name) == file_format


@pytest.mark.parametrize("name", ["stock", "csv", "stock.zip", "stock.doc", "a.csv/b", ""])
def test_a_name_that_tells_nothing_is_refused(name):
    """A name without a known extension asks for the format."""
    with pytest.raises(BadPayloadError) as raised:
        detect_format(name, system="sftp://files.partner.example")

    assert str(raised.value) == (
        f"sftp://files.partner.example: read {name!r}: the name tells no format; set the format, "
        "or have it end in one of .csv, .tsv, .xml, .json, .jsonl, .ndjson, .xlsx, .pdf, with .gz "
        "or .zip after it if packed"
    )


@pytest.mark.parametrize("kind", ["csv", "xml", "json", "jsonl", "xlsx", "pdf"])
def test_formats_are_told_by_their_kind_and_described(kind):
    """A format given as plain data, as in a run form, is recognised, and every option described."""
    file_format = TypeAdapter(FileFormat).validate_python({"kind": kind})

    assert TypeAdapter(FileFormat).validate_json(file_format.model_dump_json()) == file_format
    fields = type(file_format).model_fields
    assert [name for name in fields if not fields[name].description] == ["kind"]


def test_columns_are_known_before_the_records(opened):
    """The header can be looked at first; the records follow all the same."""
    records = opened(b"\nsku,name\n1,x\n", CsvFormat())

    assert records.columns == ("sku", "name")
    assert records.header_line == 2
    assert list(records) == [Record(3, {"sku": "1", "name": "x"})]
    assert opened(b"[]", JsonFormat()).columns is None


def test_values_can_be_keyed_otherwise(opened):
    """Other keys can be given for the columns."""
    records = opened(b"Artikel;Menge\n1;2\n", CsvFormat()).keyed_by(["sku", "quantity"])

    assert list(records) == [Record(2, {"sku": "1", "quantity": "2"})]


def test_nothing_is_opened_before_it_is_used(tmp_path):
    """A file that is not there is noticed at the first record, and an unused one never opened."""
    records = read_records(tmp_path / "gone.csv", CsvFormat(), system="folder", name="gone.csv")

    records.close()
    with pytest.raises(FileNotFoundError):
        next(read_records(tmp_path / "gone.csv", CsvFormat(), system="folder", name="gone.csv"))


def test_reading_may_stop_early(opened):
    """A file that is not read to its end is closed; an open one would fail the test run."""
    records = opened(b"sku\n1\n2\n", CsvFormat())

    assert next(records).values == {"sku": "1"}
    records.close()
    assert list(records) == []


def test_names_may_hold_anything(opened):
    """Spaces, quotes, line breaks and dots in a name are shown unmistakably, and change nothing."""
    name = 'in/../it\'s "new"\n– 価格.csv'
    with pytest.raises(BadPayloadError) as raised:
        list(opened(b"", CsvFormat(), name))

    assert str(raised.value) == (
        f"sftp://files.partner.example: read {name!r}: the file is empty (0 bytes); have the "
        "sender write it again"
    )
    assert "\n" not in str(raised.value)
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)


def test_csv_needs_none_of_the_large_libraries():
    """Reading and validating CSV imports no library for sheets, pages or XML."""
    code = (
        "import sys; import tasks.core.formats.records.validation; "
        "print(*{'lxml', 'pdfplumber', 'python_calamine'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == ""
