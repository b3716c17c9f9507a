"""Records against a declared model."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from blocks.errors import BadPayloadError
from tasks.core.formats.records.formats import CsvFormat, JsonFormat, JsonLinesFormat
from tasks.core.formats.records.record import Record, Reject
from tasks.core.formats.records.validation import RecordValidator, Valid


class Item(BaseModel):
    sku: str
    quantity: Annotated[int, Field(ge=0)]
    price: Decimal | None
    currency: str = "EUR"


def checked(content, validator, opened, options=None):
    return list(validator.validate(opened(content.encode(), options or CsvFormat())))


def test_good_rows_become_objects_and_bad_ones_rejects(opened):
    """Each row comes out in order, an object with its line or the column and the reason."""
    content = "sku,quantity,price\n007,5,1.50\nx,many,1\ny,-1,z\n7,1\nz,0,9\n"

    assert checked(content, RecordValidator(Item), opened) == [
        Valid(2, None, Item(sku="007", quantity=5, price=Decimal("1.50"))),
        Reject(
            3,
            "quantity",
            "should be a valid integer, unable to parse string as an integer",
            {"sku": "x", "quantity": "many", "price": "1"},
        ),
        Reject(
            4,
            "quantity",
            "should be greater than or equal to 0; price: should be a valid decimal",
            {"sku": "y", "quantity": "-1", "price": "z"},
        ),
        Reject(5, "", "has 2 cells where the header has 3", {"sku": "7", "quantity": "1"}),
        Valid(6, None, Item(sku="z", quantity=0, price=Decimal(9))),
    ]


def test_columns_are_matched_by_name_and_mapping(opened):
    """Columns fill the fields they are mapped to or named like, in any order and letter case."""
    validator = RecordValidator(
        Item, columns={"Artikel-Nr.": "sku", "Art.": "sku", "Menge": "quantity"}
    )
    content = " menge ;PRICE;Lager;artikel-nr.;SKU\n5;1;W1;007;ignored\n-1;1;W1;007;8\n"

    good, bad = checked(content, validator, opened)

    assert good == Valid(2, None, Item(sku="007", quantity=5, price=Decimal(1)))
    assert (bad.column, bad.reason) == ("menge", "should be greater than or equal to 0")
    assert bad.values == {
        "menge": "-1",
        "PRICE": "1",
        "Lager": "W1",
        "artikel-nr.": "007",
        "SKU": "8",
    }


@pytest.mark.parametrize(
    ("header", "options", "message"),
    [
        (
            "Artikel;Menge;price",
            {"columns": {"Menge": "quantity"}},
            (
                "line 1: lacks the columns 'sku'; the header has 'Artikel', 'Menge', 'price'; have "
                "the sender add them, map the names the file uses, or set header_row to the line "
                "that holds the column names"
            ),
        ),
        (
            "007;5",
            {"columns": {"Menge": "quantity"}},
            (
                "line 1: lacks the columns 'sku', 'Menge', 'price'; the header has '007', '5'; "
                "have the sender add them, map the names the file uses, or set header_row to the "
                "line that holds the column names"
            ),
        ),
        (
            "sku;Art.;quantity;price",
            {"columns": {"Art.": "sku", "SKU": "sku"}},
            (
                "line 1: the columns 'sku' and 'Art.' both fill the same field; have the sender "
                "leave one out, or map only one"
            ),
        ),
        (
            "sku;quantity;price;Lager;Ort",
            {"forbid_unknown": True},
            (
                "line 1: has the unknown columns 'Lager', 'Ort'; have the sender leave them out, "
                "map them to fields, or allow unknown columns"
            ),
        ),
    ],
)
def test_a_header_that_does_not_fit_fails_the_file(opened, header, options, message):
    """A missing, doubled or forbidden column is told once, not for every row."""
    records = opened(f"{header}\n1;2\n".encode(), CsvFormat())
    with pytest.raises(BadPayloadError) as raised:
        list(RecordValidator(Item, **options).validate(records))

    assert raised.value.message == message
    assert raised.value.line == 1


def test_an_empty_cell_is_the_default_or_none(opened):
    """Empty means the default, else None, else the field is reported as empty."""
    content = "sku,quantity,price,currency\n1,2,,\n,2,1,EUR\n"

    assert checked(content, RecordValidator(Item), opened) == [
        Valid(2, None, Item(sku="1", quantity=2, price=None, currency="EUR")),
        Reject(
            3,
            "sku",
            "is empty",
            {"sku": "", "quantity": "2", "price": "1", "currency": "EUR"},
        ),
    ]
    good, _ = checked(
        "sku,quantity,price\n,2,1\n1,2,\n", RecordValidator(Item, empty_texts=()), opened
    )
    assert good.item.sku == ""


def test_other_texts_may_stand_for_nothing(opened):
    """Marks such as NA are taken for empty where they are listed, and only as a whole."""
    content = "sku,quantity,price,currency\nNAN,2,NA,\nNA,1,-,EUR\n"

    good, bad = checked(content, RecordValidator(Item, empty_texts=("", "NA", "-")), opened)

    assert good.item == Item(sku="NAN", quantity=2, price=None)
    assert (bad.column, bad.reason) == ("sku", "is empty")


class Price(BaseModel):
    price: Decimal
    pieces: int | None = None
    from_day: date | None = None
    seen_at: datetime | None = None
    text: str = ""


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1,50", "1.50"),
        ("1.234,50", "1234.50"),
        ("-1 234 567,8", "-1234567.8"),
        ("1'234", "1234"),
        ("1.234", "1234"),
        (" +7 ", "7"),
        ("12345,6", "12345.6"),
    ],
)
def test_decimal_commas(opened, text, number):
    """Numbers with a decimal comma and grouped thousands are read; texts are left alone."""
    (valid,) = checked(
        f"price;text\n{text};1,5\n", RecordValidator(Price, decimal_comma=True), opened
    )

    assert valid.item == Price(price=Decimal(number), text="1,5")


@pytest.mark.parametrize(
    "text", ["1.5", "1.23", "1,234.50", "1,2,3", "12.34,5", "x", "1.2345", ","]
)
def test_other_ways_to_write_a_number_are_rejected(opened, text):
    """A point where a comma is meant is rejected, rather than read as a thousand times as much."""
    (reject,) = checked(
        f"price;text\n{text};\n", RecordValidator(Price, decimal_comma=True), opened
    )

    assert (reject.column, reject.reason) == (
        "price",
        "should be a number with a decimal comma, such as 1.234,50",
    )


def test_dates_may_be_written_otherwise(opened):
    """Dates and instants are read as the formats say, and rejected with the format."""
    validator = RecordValidator(
        Price, date_format="%d.%m.%Y", datetime_format="%d.%m.%Y %H:%M%z", decimal_comma=True
    )
    content = "price;from_day;seen_at\n1;2.11.2026;03.11.2026 14:30+0100\n1,5x;2026-11-02;x\n"

    good, bad = checked(content, validator, opened)

    assert good.item.from_day == date(2026, 11, 2)
    assert good.item.seen_at == datetime.fromisoformat("2026-11-03T14:30+01:00")
    assert (bad.column, bad.reason) == (
        "price",
        (
            "should be a number with a decimal comma, such as 1.234,50; from_day: should be "
            "written as %d.%m.%Y; seen_at: should be written as %d.%m.%Y %H:%M%z"
        ),
    )


def test_all_faults_of_a_row_are_told_together(opened):
    """What cannot be read and what the model refuses end in one reject."""
    content = "pieces;price;seen_at\n1;x;y\n"

    (reject,) = checked(content, RecordValidator(Price, decimal_comma=True), opened)

    assert reject.column == "price"
    assert reject.reason.startswith("should be a number with a decimal comma")
    assert "; seen_at: should be a valid datetime" in reject.reason


class Line(BaseModel):
    sku: str
    quantity: int


class Order(BaseModel):
    model_config = ConfigDict(extra="forbid")

    order_no: str = Field(alias="orderNo")
    status: Literal["open", "closed"]
    lines: list[Line] = []


def test_records_without_header_are_matched_one_by_one(opened):
    """In JSON each record brings its own names; what is missing is told for the record."""
    content = """{"ORDER_NO": "1", "status": "open", "lines": [{"sku": "x", "quantity": 1}]}
{"status": "open", "note": ""}
{"order_no": "3", "status": "lost", "lines": [{"sku": "x", "quantity": "many"}]}
{"order_no": "4", "Order_No": "5", "status": "open"}
"""
    good, missing, bad, doubled = checked(
        content, RecordValidator(Order), opened, JsonLinesFormat()
    )

    assert good.item == Order(orderNo="1", status="open", lines=[Line(sku="x", quantity=1)])
    assert (missing.line, missing.column, missing.reason) == (2, "order_no", "is missing")
    assert (bad.column, bad.reason) == (
        "status",
        (
            "should be 'open' or 'closed'; lines[0].quantity: should be a valid integer, unable to "
            "parse string as an integer"
        ),
    )
    assert (doubled.column, doubled.reason) == ("Order_No", "is there twice, spelled differently")


def test_unknown_names_of_single_records_can_be_forbidden(opened):
    """Without a header an unknown name rejects its record."""
    content = '[{"order_no": "1", "status": "open", "note": 1}]'

    (reject,) = checked(content, RecordValidator(Order, forbid_unknown=True), opened, JsonFormat())

    assert (reject.column, reject.reason) == ("note", "is not expected")


def test_unknown_columns_never_reach_a_strict_model(opened):
    """A model that forbids extras is spared the columns that were to be ignored."""
    (valid,) = checked("order_no,status,note\n1,open,x\n", RecordValidator(Order), opened)

    assert valid.item == Order(orderNo="1", status="open")


def test_any_iterable_of_records_is_taken():
    """Records need not come from a file; rejects pass through."""
    reject = Reject(1, "", "is odd", {})
    records = [reject, Record(2, {"SKU": "1", "quantity": 1, "price": None}, page=3)]

    assert list(RecordValidator(Item).validate(records)) == [
        reject,
        Valid(2, 3, Item(sku="1", quantity=1, price=None)),
    ]


class Secretive(BaseModel):
    iban: str
    pin: int = 0

    @field_validator("iban")
    @classmethod
    def _known(cls, iban: str) -> str:
        if not iban.startswith("DE"):
            raise ValueError(f"{iban} is no German account")
        return iban

    @model_validator(mode="after")
    def _consistent(self) -> Secretive:
        if self.pin == 1:
            raise ValueError("pin does not fit")
        return self


def test_a_reason_never_quotes_the_value(opened):
    """Reasons end in artifacts, so a value is blotted out even where the model's message has it."""
    content = "iban,pin\nFR7612345,0\nDE1,1\nDE2,12ab\n"

    reasons = [(r.column, r.reason) for r in checked(content, RecordValidator(Secretive), opened)]

    assert reasons == [
        ("iban", "… is no German account"),
        ("", "pin does not fit"),
        ("pin", "should be a valid integer, unable to parse string as an integer"),
    ]


def test_a_number_where_text_is_declared_says_how_to_take_it():
    """Sheets store codes as numbers; the reason names the setting that takes them as text."""
    (reject,) = RecordValidator(Item).validate([Record(2, {"sku": 7, "quantity": 1, "price": 1})])

    assert reject.reason == "is a number; the model takes it as text with coerce_numbers_to_str"


def test_many_faults_are_cut_short():
    """A reason stays readable however much is wrong."""

    class Wide(BaseModel):
        a: int
        b: int
        c: int
        d: int
        e: int
        f: int
        g: int

    (reject,) = RecordValidator(Wide).validate([Record(1, dict.fromkeys("abcdefg", "x"))])

    assert reject.reason.count("should be") == 5
    assert reject.reason.endswith("; and 2 more")


def test_a_column_cannot_be_mapped_to_nothing():
    """A mapping to a field the model has not is a mistake in the integration."""
    with pytest.raises(ValueError, match="Item has no field amount"):
        RecordValidator(Item, columns={"Menge": "amount"})


@given(
    values=st.dictionaries(
        st.sampled_from(["sku", "SKU", "quantity", "price", "currency", "other", ""]),
        st.none()
        | st.text("019.,-xé ", max_size=6)
        | st.integers()
        | st.floats()
        | st.lists(st.integers()),
    ),
    decimal_comma=st.booleans(),
    forbid_unknown=st.booleans(),
)
def test_any_record_is_an_object_or_a_reject(values, decimal_comma, forbid_unknown):
    """Whatever a record holds, it ends as an object or as a reject, never as another error."""
    validator = RecordValidator(Item, decimal_comma=decimal_comma, forbid_unknown=forbid_unknown)

    (outcome,) = validator.validate([Record(7, values)])

    assert outcome.line == 7
    if isinstance(outcome, Reject):
        assert outcome.values == values
        assert outcome.reason
