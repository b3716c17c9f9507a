"""What the imports of records have in common, wherever the records come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from pydantic import BaseModel

from blocks.http_api import HttpApi
from tasks.core.connectors.http.client import ApiClient
from tasks.core.formats.records.formats import FileFormat
from tasks.core.formats.records.validation import RecordValidator
from tasks.core.sync.batches.application_records import MODELS, Order, RecordType
from tasks.core.sync.batches.http_sink import HttpSink
from tasks.core.sync.batches.result import BatchResult
from tasks.core.sync.record_import.importing import ImportItem, RecordImporter

__all__ = [
    "MODELS",
    "BatchResult",
    "HoldsFiles",
    "ImportItem",
    "Order",
    "RecordImport",
    "RecordImporter",
    "RecordType",
]


class HoldsFiles(Protocol):
    """Says how the files are read that rows or messages hold."""

    @property
    def file_format(self) -> FileFormat | None:
        """None: by their names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordImport:
    """As what the records of one source are read, and where they go.

    Attributes:
        application: Takes the records, as `POST <resource>/batch`.
        resource: What the records are there, e.g. "orders".
        model: What a record must be.
        columns: The source's names to the model's field names, where they differ.
        decimal_comma: Numbers in texts are written as 1.234,50.
        empty_texts: What the source writes for no value.
    """

    application: HttpApi
    resource: str
    model: type[BaseModel]
    columns: Mapping[str, str] = field(default_factory=dict)
    decimal_comma: bool = False
    empty_texts: tuple[str, ...] = ("",)

    def validator(self) -> RecordValidator[BaseModel]:
        """What checks the records of files and of lists."""
        return RecordValidator(
            self.model,
            columns=self.columns,
            decimal_comma=self.decimal_comma,
            empty_texts=self.empty_texts,
        )

    def importer(
        self, api: ApiClient, *, system: str, file: HoldsFiles | None, batch_size: int
    ) -> RecordImporter:
        """What checks the records of rows and messages, and sends them.

        Args:
            api: The application's client.
            system: Where the records come from, for errors.
            file: Rows or messages hold whole files.
            batch_size: Records sent at once.
        """
        return RecordImporter(
            HttpSink(api, self.resource),
            self.model,
            system=system,
            columns=self.columns,
            decimal_comma=self.decimal_comma,
            empty_texts=self.empty_texts,
            holds_files=file is not None,
            file_format=file.file_format if file else None,
            batch_size=batch_size,
        )
