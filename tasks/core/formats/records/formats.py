"""The options of each file format, shown as forms in Prefect's UI."""

from __future__ import annotations

import codecs
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator

_KIB = 1024
_MIB = 1024 * _KIB
_GIB = 1024 * _MIB

AUTO = "auto"


def _known_encoding(name: str) -> str:
    if name == AUTO:
        return name
    try:
        codecs.lookup(name)
        "".encode(name)  # refuses codecs that are not for text, such as base64
    except LookupError as exc:
        raise ValueError(
            f"{name!r} is not an encoding; known are for example utf-8, utf-16, windows-1252"
        ) from exc
    return name


def _one_character(value: str) -> str:
    character = {"tab": "\t", "\\t": "\t"}.get(value, value)
    if character != AUTO and (len(character) != 1 or character in "\r\n\0 "):
        raise ValueError('one character, such as ";", or "tab"')
    return character


Encoding = Annotated[
    str,
    AfterValidator(_known_encoding),
    Field(
        description="Character encoding, e.g. utf-8, utf-16 or windows-1252. "
        "auto: as the byte-order mark says, else strict UTF-8; never a guess."
    ),
]
Character = Annotated[str, AfterValidator(_one_character)]
MaxRecordBytes = Annotated[
    int,
    Field(
        ge=_KIB,
        le=_GIB,
        description="Most bytes one record may take in the file; a longer one, such as a line "
        "that never ends, is refused. Bounds memory.",
    ),
]


class _FileOptions(BaseModel):
    """The options all formats share: packing and size limits."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    compression: Literal["auto", "none", "gzip", "zip"] = Field(
        default="auto",
        description="How the file is packed. auto: detected from its first bytes.",
    )
    zip_member: str = Field(
        default="*",
        min_length=1,
        description="Which file of a zip archive to read, as a pattern such as *.csv; exactly "
        "one file must match.",
    )
    max_bytes: int = Field(
        default=16 * _GIB,
        ge=1,
        description="Largest file accepted, in bytes once unpacked.",
    )
    max_unpack_ratio: int = Field(
        default=200,
        ge=2,
        description="How many times its packed size a file may unpack to; more is refused as a "
        "decompression bomb. Checked from 32 MiB on.",
    )


class CsvFormat(_FileOptions):
    """Delimited text with one record per line; every value stays the text in the file."""

    kind: Literal["csv"] = "csv"
    encoding: Encoding = AUTO
    delimiter: Character = Field(
        default=AUTO,
        description='What separates cells: one character or "tab". auto: whichever of '
        "comma, semicolon, tab and | the header line uses.",
    )
    quote_char: Character | None = Field(
        default='"',
        description="What encloses cells that hold delimiters or line breaks; "
        "doubled, it means itself. None: quotes have no meaning.",
    )
    escape_char: Character | None = Field(
        default=None,
        description="Character that escapes the next one, e.g. a backslash.",
    )
    header_row: int = Field(
        default=1,
        ge=0,
        description="Line that holds the column names, counted from 1; lines above are skipped. "
        "0: the file has none, the names are given in columns.",
    )
    columns: tuple[str, ...] = Field(
        default=(), description="Column names of a file without header line, in order."
    )
    max_record_bytes: MaxRecordBytes = 1 * _MIB

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.header_row == 0) != bool(self.columns):
            raise ValueError("columns are given if and only if header_row is 0")
        if self.quote_char == AUTO or self.escape_char == AUTO:
            raise ValueError("only the delimiter can be detected automatically")
        characters = [self.delimiter, self.quote_char, self.escape_char]
        given = [character for character in characters if character]
        if len(set(given)) < len(given):
            raise ValueError("delimiter, quote_char and escape_char must differ")
        return self


class XmlFormat(_FileOptions):
    """XML with one element per record. Entities and DTDs are refused.

    The values of a record are keyed by path: `sku`, `price/amount`, attributes as `@id` or
    `price/@currency`. Names match any namespace, unless the namespace is listed in `namespaces`:
    then they have its prefix, here and in the keys.
    """

    kind: Literal["xml"] = "xml"
    record_path: str = Field(
        default="",
        pattern=r"^$|^[^/\s@]+(/[^/\s@]+)*$",
        description="Path of the elements that are records, from the root on, "
        "e.g. catalog/item. Empty: every child of the root.",
    )
    namespaces: dict[str, str] = Field(
        default_factory=dict,
        description="Prefixes used in paths, each with its namespace.",
    )
    repeated: tuple[str, ...] = Field(
        default=(),
        description="Paths inside a record of elements that may occur more than once, e.g. "
        "lines/line: their value is a list, of texts or of records.",
    )
    max_record_bytes: MaxRecordBytes = 8 * _MIB

    @model_validator(mode="after")
    def _prefixes_are_known(self) -> Self:
        for segment in "/".join((self.record_path, *self.repeated)).split("/"):
            prefix, colon, _ = segment.partition(":")
            if colon and prefix not in self.namespaces:
                raise ValueError(f"the prefix {prefix!r} is not listed in namespaces")
        return self


class JsonFormat(_FileOptions):
    """A JSON document with an array of records. Fractions are read as Decimal."""

    kind: Literal["json"] = "json"
    record_path: str = Field(
        default="",
        description="Keys that lead to the array of records, e.g. data/items. "
        "Empty: the document is the array.",
    )
    encoding: Encoding = AUTO
    max_record_bytes: MaxRecordBytes = 8 * _MIB


class JsonLinesFormat(_FileOptions):
    """One JSON object per line. Fractions are read as Decimal."""

    kind: Literal["jsonl"] = "jsonl"
    encoding: Encoding = AUTO
    max_record_bytes: MaxRecordBytes = 8 * _MIB


class XlsxFormat(_FileOptions):
    """A sheet of an Excel workbook, held in memory as a whole.

    Whole numbers are read as int, dates and times as such, and an error such as #N/A as an
    empty cell. A field for codes needs `coerce_numbers_to_str` in its model's configuration,
    because a sheet stores the code 4711 as a number.
    """

    kind: Literal["xlsx"] = "xlsx"
    sheet: str | int = Field(default=1, description="Name of the sheet, or its number from 1.")
    header_row: int = Field(
        default=1,
        ge=1,
        description="Row that holds the column names, counted from 1; rows above are skipped.",
    )
    max_cells: int = Field(
        default=5_000_000,
        ge=1,
        description="Most cells a sheet may span, empty ones included; bounds memory "
        "(32 bytes per cell, plus its text).",
    )
    max_bytes: int = Field(
        default=512 * _MIB,
        ge=1,
        description="Largest workbook accepted, in bytes after unpacking.",
    )


class PdfFormat(_FileOptions):
    """The tables of a PDF as one table; headers repeated on each page are dropped."""

    kind: Literal["pdf"] = "pdf"
    strategy: Literal["lines", "text"] = Field(
        default="lines",
        description="How cells are told apart: by ruled lines, or by the gaps in the text.",
    )
    other_tables: Literal["reject", "ignore"] = Field(
        default="reject",
        description="What happens to tables with another number of columns than the first: "
        "their rows are rejected, or left out.",
    )
    password: SecretStr | None = Field(
        default=None, description="Opens an encrypted PDF; not needed for others."
    )
    max_pages: int = Field(default=2_000, ge=1, description="Most pages accepted.")
    max_bytes: int = Field(
        default=256 * _MIB, ge=1, description="Largest file accepted, in bytes once unpacked."
    )


FileFormat = Annotated[
    CsvFormat | XmlFormat | JsonFormat | JsonLinesFormat | XlsxFormat | PdfFormat,
    Field(discriminator="kind"),
]
