"""Maps a file's columns to the fields of a model."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from pydantic import AliasChoices, BaseModel
from pydantic.fields import FieldInfo

_MAX_REMEMBERED_NAMES = 1024  # names come from files, so their number is unbounded


class ModelFields:
    """The fields of a model, by the columns that fill them.

    A field's key is its name in the model's input: its alias, if it has one.

    Attributes:
        keys: Field name to key.
        optional: Keys of the fields that have a default.
        required: Keys of the others.
        columns: Key to column, as the schema calls it, for messages.
    """

    def __init__(self, model: type[BaseModel], columns: Mapping[str, str]) -> None:
        unknown = sorted(set(columns.values()) - set(model.model_fields))
        if unknown:
            raise ValueError(f"{model.__name__} has no field {', '.join(unknown)}")
        fields = model.model_fields
        self.keys = {name: _key(name, field) for name, field in fields.items()}
        self.optional = frozenset(
            self.keys[name] for name, field in fields.items() if not field.is_required()
        )
        self.required = [key for key in self.keys.values() if key not in self.optional]
        self.columns = {self.keys[field]: column for column, field in columns.items()}
        self._by_column = {_normalised(column): self.keys[columns[column]] for column in columns}
        for name, key in self.keys.items():
            if key not in self.columns:
                self.columns[key] = name
                self._by_column.setdefault(_normalised(name), key)
        self.key_of = lru_cache(_MAX_REMEMBERED_NAMES)(self._key_of)

    def _key_of(self, column: str) -> str | None:
        """Return the key of the field that a column fills, or None."""
        return self._by_column.get(_normalised(column))


def _key(name: str, field: FieldInfo) -> str:
    alias = field.validation_alias
    if isinstance(alias, AliasChoices):
        alias = alias.choices[0]
    return alias if isinstance(alias, str) else name


def _normalised(column: str) -> str:
    return " ".join(column.split()).casefold()
