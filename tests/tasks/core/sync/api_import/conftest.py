"""A marketplace, the application, and imports from one into the other by the plain logic."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from blocks.http_api import ApiKeyAuth, HttpApi
from flows.orders_import.orders import ORDERS, order_of
from tasks.api import open_api
from tasks.core.formats.records.validation import RecordValidator
from tasks.core.sync.api_import.cursors import Cursors
from tasks.core.sync.api_import.importing import import_changes
from tasks.core.sync.api_import.job import ApiImportJob, ApiImportResult
from tasks.core.sync.api_import.source import IncrementalList
from tasks.core.sync.batches.application_records import Order
from tasks.core.sync.batches.http_sink import HttpSink

_SMALL = {"params": {"limit": 3}, "overlap_s": 60, "slice_s": None, "at_once": 1}


class Imports:
    """Runs imports of the marketplace's orders.

    Attributes:
        now: What the clock shows.
    """

    def __init__(self, engine: Engine, source: HttpApi, application: HttpApi) -> None:
        self.now = lambda: datetime.now(UTC)
        self.cursors = Cursors(engine, clock=self._clock)
        self._source = source
        self._application = application

    def _clock(self) -> datetime:
        return self.now()

    def job(self, opened: ExitStack, **options: Any) -> ApiImportJob:
        """What an import is told; `options` go before what is usual here."""
        listing = options.pop("listing", {})
        source = options.pop("source", self._source)
        source_client = opened.enter_context(open_api(source))
        application = opened.enter_context(open_api(self._application))
        usual: dict[str, Any] = {
            "stream": "orders",
            "owner": "run",
            "cursors": self.cursors,
            "source": source_client,
            "listing": IncrementalList(**{**ORDERS.model_dump(), **_SMALL, **listing}),
            "sink": HttpSink(application, "orders"),
            "model": Order,
            "validator": RecordValidator(Order),
            "reshape": order_of,
        }
        return ApiImportJob(**{**usual, **options})

    def run(self, **options: Any) -> ApiImportResult:
        """Import once."""
        with ExitStack() as opened:
            return import_changes(self.job(opened, **options))

    def cursor(self) -> datetime | None:
        """Where the cursor is."""
        value = self.cursors.streams()[0].value
        return None if value is None else datetime.fromisoformat(value)


@pytest.fixture
def imports(state_database: Engine, marketplace_api: Any, own_app: Any) -> Imports:
    """Imports that lose no time when something fails."""
    return Imports(
        state_database,
        marketplace_api.block(max_attempts=2, first_wait_s=0.001),
        HttpApi(
            base_url=f"{own_app.base_url}/api/v1",
            auth=ApiKeyAuth(key=own_app.api_key),
            max_attempts=1,
        ),
    )


@pytest.fixture
def earlier() -> Callable[[float], datetime]:
    """An instant so many seconds before one an hour ago, at a whole second."""
    base = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
    return lambda seconds: base - timedelta(seconds=seconds)


@pytest.fixture
def sent(own_app: Any) -> Callable[[], int]:
    """How many batches the application was given."""
    return lambda: own_app.requests()["counts"].get("POST /api/v1/orders/batch", 0)
