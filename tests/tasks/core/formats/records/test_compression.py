"""Packed files: read as if they were not, and refused where they are odd."""

from __future__ import annotations

import contextlib
import gzip
import io
import resource
import zipfile

import pytest
import xlsxwriter
from hypothesis import given
from hypothesis import strategies as st

from blocks.errors import BadPayloadError, MisconfiguredError
from tasks.core.formats.records.formats import CsvFormat, JsonFormat, XlsxFormat, XmlFormat
from tasks.core.formats.records.record import Record

CSV = b"sku,name\n1,x\n"
RECORDS = [Record(2, {"sku": "1", "name": "x"})]
MIB = 1024 * 1024


def gzip_of(content: bytes) -> bytes:
    """The same bytes in every second, since they name tests."""
    return gzip.compress(content, mtime=0)


def zipped(*members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return file.getvalue()


def workbook() -> bytes:
    file = io.BytesIO()
    with xlsxwriter.Workbook(file) as book:
        sheet = book.add_worksheet()
        sheet.write_row(0, 0, ["sku", "name"])
        sheet.write_row(1, 0, ["1", "x"])
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        CSV,
        gzip_of(CSV),
        gzip_of(CSV[:5]) + gzip_of(CSV[5:]),
        zipped(("stock.csv", CSV)),
        zipped(("stock.csv", CSV), method=zipfile.ZIP_STORED),
        zipped(("stock.csv", CSV), method=zipfile.ZIP_LZMA),
        zipped(("out/", b""), ("out/stock.csv", CSV), ("__MACOSX/stock.csv", b"junk")),
    ],
    ids=["plain", "gzip", "gzip of two", "zip", "stored", "lzma", "with folder and junk"],
)
def test_packing_is_found_out(read, content):
    """A file reads the same packed or not; how it is packed is found out from its bytes."""
    assert read(content, CsvFormat()) == RECORDS


@pytest.mark.parametrize(
    ("plain", "options"),
    [
        (b"<r><i><sku>1</sku><name>x</name></i></r>", XmlFormat()),
        (b'[{"sku": "1", "name": "x"}]', JsonFormat()),
        (workbook(), XlsxFormat()),
    ],
)
def test_every_format_may_be_packed(read, plain, options):
    """Packing is independent of the format, also where the format is a zip archive itself."""
    for content in (plain, gzip.compress(plain), zipped(("a file", plain))):
        assert [r.values for r in read(content, options)] == [RECORDS[0].values]


def test_packing_can_be_set(read, refusal):
    """A packing that is set is not second-guessed."""
    assert read(gzip.compress(CSV), CsvFormat(compression="gzip")) == RECORDS
    assert refusal(CSV, CsvFormat(compression="gzip")) == (
        "its packed data is damaged (Not a gzipped file (b'sk')); have the sender pack and send "
        "it again"
    )
    assert refusal(CSV, CsvFormat(compression="zip")) == (
        "its zip data is damaged (File is not a zip file); have the sender pack and send it again"
    )


def test_the_member_to_read_is_chosen_by_pattern(read):
    """Of several files in an archive the one that matches is read."""
    content = zipped(("readme.txt", b"?"), ("data/stock.csv", CSV), ("data/prices.csv", b"?"))

    assert read(content, CsvFormat(zip_member="*/stock*.csv")) == RECORDS


def test_errors_name_the_archive_and_the_member(opened):
    """What is wrong in a member is told of the member."""
    with pytest.raises(BadPayloadError) as raised:
        list(opened(zipped(("in/stock.csv", b"sku,sku\n")), CsvFormat(), "stock.zip"))

    assert str(raised.value) == (
        "sftp://files.partner.example: read 'stock.zip/in/stock.csv': line 1: the header names "
        "'sku' twice, as column 1 and as column 2; have the sender name each column once"
    )


PACKED_TWICE = zipped(("a.csv", CSV), ("b.csv", CSV))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            gzip_of(CSV * 1000)[:-20],
            "ends too early; the transfer was cut: have the sender send it again",
        ),
        (
            gzip_of(CSV)[:-8] + b"12345678",
            "its packed data is damaged (CRC check failed",
        ),
        (gzip_of(b""), "the file is empty (0 bytes); have the sender write it again"),
        (zipped(("a.csv", b"")), "the file is empty (0 bytes); have the sender write it again"),
        (
            zipped(("a.csv", CSV * 1000))[:-30],
            (
                "its zip data is damaged (File is not a zip file); have the sender pack and send "
                "it again"
            ),
        ),
        (
            PACKED_TWICE,
            (
                "2 files match '*' in this archive of 'a.csv', 'b.csv'; set zip_member to a "
                "pattern that only the file to read matches"
            ),
        ),
        (
            zipped(),
            (
                "no file matches '*' in this archive of nothing; set zip_member to a pattern that "
                "only the file to read matches"
            ),
        ),
        *(
            (
                zipped((name, CSV)),
                (
                    f"holds a file named {name!r}, which leads out of its folder; have the sender "
                    "pack plain file names"
                ),
            )
            for name in ("../a.csv", "/etc/a.csv", "x/../../a.csv", "C:a.csv", "..\\a.csv", "..")
        ),
    ],
)
def test_archives_that_cannot_be_read(refusal, content, message):
    """What is cut, damaged, ambiguous or leads elsewhere is refused with what to do."""
    assert refusal(content, CsvFormat()).startswith(message)


def test_an_encrypted_archive_is_refused(refusal):
    """A member that needs a password says so; the standard library cannot write one."""
    content = bytearray(zipped(("stock.csv", CSV)))
    content[6] |= 1  # the flag in the file's own header
    content[content.index(b"PK\x01\x02") + 8] |= 1  # and in the directory

    assert refusal(bytes(content), CsvFormat()) == (
        "'stock.csv' in this archive is encrypted; have the sender pack it without a password"
    )


@pytest.mark.parametrize("pack", [gzip.compress, lambda content: zipped(("bomb.csv", content))])
def test_bombs_are_refused(refusal, pack):
    """A file that grows beyond the ratio or the limit is refused on the way, not afterwards."""
    bomb = pack(b"sku,name\n" + (b"1," + b"x" * 5000 + b"\n") * 8000)

    assert "unpacks to more than 200 times its packed size of " in refusal(bomb, CsvFormat())
    assert refusal(bomb, CsvFormat(max_bytes=MIB)) == (
        "is larger than 1,048,576 bytes; have the sender split it, or raise max_bytes"
    )


def test_a_file_may_be_packed_well(read):
    """The ratio alone makes no bomb of a small file."""
    assert len(read(gzip.compress(CSV + b"1,x\n" * 100_000), CsvFormat())) == 100_001


def test_a_full_disk_is_ours_to_mend(opened):
    """Where a packed workbook finds no room to be unpacked, the error says where to make some."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    content = gzip.compress(workbook())
    records = opened(content, XlsxFormat(), "stock.xlsx.gz")
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(MisconfiguredError) as raised:
            list(records)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert "there is no room to unpack it in /" in str(raised.value)
    assert "(File too large); make room, or set TMPDIR to a folder that has some" in str(
        raised.value
    )


GOOD = [gzip.compress(CSV), PACKED_TWICE, zipped(("stock.csv", CSV))]


@given(
    content=st.sampled_from(GOOD),
    changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=4),
    end=st.integers(0, 400),
)
def test_any_damage_is_read_or_refused(opened, content, changes, end):
    """Whatever happened to an archive, reading it ends in records or in a BadPayloadError."""
    damaged = bytearray(content)
    for place, value in changes:
        damaged[place % len(damaged)] = value
    with contextlib.suppress(BadPayloadError):
        list(opened(bytes(damaged[:end]), CsvFormat(zip_member="[as]*.csv")))
