"""Turns records into objects of a declared model, or rejects that say what is wrong and where."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from tasks.core.formats.records.conversion import conversions
from tasks.core.formats.records.model_fields import ModelFields
from tasks.core.formats.records.reading import Records
from tasks.core.formats.records.reasons import explained
from tasks.core.formats.records.record import Record, Reject

Model = TypeVar("Model", bound=BaseModel)
Values = Mapping[str, Any]
# Takes a record's values; collects what is wrong with them by key.
_Arrange = Callable[[Values, dict[str, str]], Values]

_MAX_NAMES_LISTED = 30
_MAX_NAME_SHOWN = 40


class Valid(NamedTuple, Generic[Model]):
    """A record that fits its model.

    Attributes:
        line: As in `Record`.
        page: As in `Record`.
        item: The object.
    """

    line: int
    page: int | None
    item: Model


class RecordValidator(Generic[Model]):
    """Checks records against a model, at little more cost than the model's own validation.

    Columns match fields by name, ignoring case and surrounding white space.
    """

    def __init__(
        self,
        model: type[Model],
        *,
        columns: Mapping[str, str] | None = None,
        decimal_comma: bool = False,
        date_format: str | None = None,
        datetime_format: str | None = None,
        empty_texts: Sequence[str] = ("",),
        forbid_unknown: bool = False,
    ) -> None:
        """Prepare for any number of files.

        Args:
            model: What a record must fit. Fields with a default are optional columns.
            columns: Column as the file names it to field, where the two differ; several
                columns may name one field if no file has two of them.
            decimal_comma: Numbers are written as 1.234,50; other ways are rejected.
            date_format: How dates are written, as for `strptime`; None for ISO 8601.
            datetime_format: How dates with times are written, likewise.
            empty_texts: Texts that mean no value, e.g. ("", "NA"): the field's default, else None.
            forbid_unknown: Whether columns without a field are an error; else they are ignored.

        Raises:
            ValueError: A column is mapped to a field that the model lacks.
        """
        self._fields = ModelFields(model, columns or {})
        self._validate: Callable[[Any], Model] = TypeAdapter(model).validator.validate_python
        self._ignores_extra = model.model_config.get("extra", "ignore") == "ignore"
        self._empty_texts = tuple(empty_texts)
        self._forbid_unknown = forbid_unknown
        by_field = conversions(
            model,
            decimal_comma=decimal_comma,
            date_format=date_format,
            datetime_format=datetime_format,
        )
        self._conversions = {self._fields.keys[name]: by_field[name] for name in by_field}

    def validate(self, records: Iterable[Record | Reject]) -> Iterator[Valid[Model] | Reject]:
        """Yield each record as an object or as a reject, in the order of the file.

        Args:
            records: From `read_records`; other records work too, but have no header to check.

        Raises:
            BadPayloadError: The header lacks a required column, has two for one field, or has
                a forbidden unknown one; or reading raised it.
        """
        if isinstance(records, Records) and records.columns is not None:
            columns = self._columns_by_key(records.columns, records)
            return self._checked(records.keyed_by(list(columns)), columns)
        return self._checked(records, None)

    def _checked(
        self, records: Iterable[Record | Reject], columns: Mapping[str, str] | None
    ) -> Iterator[Valid[Model] | Reject]:
        # Nearly all records of a large file take this fast path.
        validate = self._validate
        arrange = self._arrangement(columns)
        has_short_way = arrange is None and not self._conversions and set(self._empty_texts) <= {""}
        may_be_empty = bool(self._empty_texts)
        filled = self._filled
        new_tuple = tuple.__new__
        for record in records:
            if isinstance(record, Reject):
                yield record
                continue
            line, values, page = record
            if has_short_way:
                if may_be_empty and "" in values.values():
                    values = filled(values)
                try:
                    item = validate(values)
                except ValidationError:
                    pass
                else:
                    yield new_tuple(Valid, (line, page, item))
                    continue
            yield self._checked_closely(record, arrange, columns)

    def _checked_closely(
        self, record: Record, arrange: _Arrange | None, columns: Mapping[str, str] | None
    ) -> Valid[Model] | Reject:
        line, values, page = record
        problems: dict[str, str] = {}
        if arrange is not None:
            values = arrange(values, problems)
        values = self._converted(values, problems)
        error = None
        try:
            item = self._validate(values)
        except ValidationError as exc:
            error = exc
        else:
            if not problems:
                return Valid(line, page, item)
        return self._reject(record, columns, values, problems, error)

    def _columns_by_key(self, columns: Sequence[str], records: Records) -> dict[str, str]:
        """Check the header, and give every column a key: its field's, or its own."""
        source, line = records.source, records.header_line
        by_key: dict[str, str] = {}
        unknown: list[str] = []
        for place, column in enumerate(columns, 1):
            key = self._fields.key_of(column)
            if key is None:
                unknown.append(column)
                key = f"column {place}"
            elif key in by_key:
                raise source.bad(
                    f"the columns {by_key[key]!r} and {column!r} both fill the same field; have "
                    "the sender leave one out, or map only one",
                    line=line,
                )
            by_key[key] = column
        missing = [self._fields.columns[key] for key in self._fields.required if key not in by_key]
        if missing:
            raise source.bad(
                f"lacks the columns {_listed(missing)}; the header has {_listed(columns)}; have "
                "the sender add them, map the names the file uses, or set header_row to the line "
                "that holds the column names",
                line=line,
            )
        if unknown and self._forbid_unknown:
            raise source.bad(
                f"has the unknown columns {_listed(unknown)}; have the sender leave them out, map "
                "them to fields, or allow unknown columns",
                line=line,
            )
        return by_key

    def _arrangement(self, columns: Mapping[str, str] | None) -> _Arrange | None:
        """Return the function that turns a record's values into the model's input, if needed."""
        if columns is None:
            return self._arranged
        known = [key for key in columns if key in self._fields.columns]
        if self._ignores_extra or len(known) == len(columns):
            return None
        return lambda values, _problems: {key: values[key] for key in known}

    def _arranged(self, values: Values, problems: dict[str, str]) -> Values:
        """Key the values of a record without a header by field."""
        arranged: dict[str, Any] = {}
        for column, value in values.items():
            key = self._fields.key_of(column)
            if key is None:
                if self._forbid_unknown:
                    problems[column] = "is not expected"
            elif key in arranged:
                problems[key] = "is there twice, spelled differently"
            else:
                arranged[key] = value
        return arranged

    def _converted(self, values: Values, problems: dict[str, str]) -> Values:
        """Replace empty values by the default or None, and convert the others."""
        converted = self._filled(values)
        for key, conversion in self._conversions.items():
            value = converted.get(key)
            if isinstance(value, str):
                try:
                    converted[key] = conversion(value)
                except ValueError as exc:
                    problems[key] = str(exc)
        return converted

    def _filled(self, values: Values) -> dict[str, Any]:
        """Leave out empty values that have a default; set the others to None."""
        empty_texts, optional = self._empty_texts, self._fields.optional
        return {
            key: None if value in empty_texts else value
            for key, value in values.items()
            if value not in empty_texts or key not in optional
        }

    def _reject(
        self,
        record: Record,
        columns: Mapping[str, str] | None,
        values: Values,
        problems: Mapping[str, str],
        error: ValidationError | None,
    ) -> Reject:
        line, as_read, page = record
        if columns is None:
            names = {self._fields.key_of(column) or column: column for column in as_read}
        else:
            names = dict(columns)
            as_read = {columns[key]: value for key, value in as_read.items()}
        column, reason = explained(error, problems, values, {**self._fields.columns, **names})
        return Reject(line, column, reason, as_read, page)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name[:_MAX_NAME_SHOWN]) for name in names[:_MAX_NAMES_LISTED])
    left_out = len(names) - _MAX_NAMES_LISTED
    return shown if left_out <= 0 else f"{shown} and {left_out} more"
