"""The cases that run in the project's own environment: bare httpx, ours, and the whole import.

Each function imports what its case needs, which is not measured, and returns the case.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from sink import Sink, measure

Case = Callable[[Sink], None]


def bare() -> Case:
    """What one writes by hand."""
    import httpx

    def case(sink: Sink) -> None:
        with httpx.Client(base_url=sys.argv[2], timeout=30) as http:
            page, total = 1, 1
            while page <= total:
                response = http.get("/orders", params={"page": page})
                response.raise_for_status()
                body = response.json()
                sink.write_page(body["records"])
                total = body["total_pages"]
                page += 1

    return case


def ours(at_once: int = 1) -> Case:
    """The project's HTTP layer, as an import uses it."""
    from blocks.http_api import HttpApi
    from tasks.api import open_api
    from tasks.core.connectors.http.pagination import PageNumber
    from tasks.core.connectors.http.paging import fetch_pages, read_ahead

    style = PageNumber(records_path="records", total_pages_path="total_pages")

    def case(sink: Sink) -> None:
        with open_api(HttpApi(base_url=sys.argv[2])) as client:
            pages = fetch_pages(client, "orders", style, at_once=at_once)
            with closing(read_ahead(pages)) as ahead:
                for page in ahead:
                    sink.write_page(page.records)

    return case


def whole_import() -> Case:
    """An import by cursor with everything it promises."""
    import orjson
    from pydantic import BaseModel

    from blocks.http_api import HttpApi
    from tasks.api import open_api
    from tasks.core.formats.records.validation import RecordValidator
    from tasks.core.state.database import open_database
    from tasks.core.sync.api_import.cursors import Cursors
    from tasks.core.sync.api_import.importing import import_changes
    from tasks.core.sync.api_import.job import ApiImportJob
    from tasks.core.sync.api_import.source import IncrementalList
    from tasks.core.sync.batches.sink import Sent

    class Order(BaseModel):
        id: str
        updated_at: str
        amount: str
        buyer: dict[str, str]

    engine = open_database(f"sqlite:///{Path(sys.argv[3]).with_suffix('.state')}")

    def case(sink: Sink) -> None:
        class IntoTable:
            def send(self, records: bytes, *, count: int, idempotency_key: str) -> Sent:
                sink.write_page(orjson.loads(records))
                return Sent(created=count)

        with open_api(HttpApi(base_url=sys.argv[2])) as client:
            job = ApiImportJob(
                stream="orders",
                owner="benchmark",
                cursors=Cursors(engine),
                source=client,
                listing=IncrementalList(path="orders"),
                sink=IntoTable(),
                model=Order,
                validator=RecordValidator(Order),
            )
            import_changes(job)

    return case


if __name__ == "__main__":
    measure(
        {
            "bare": bare,
            "ours": ours,
            "ours at once": lambda: ours(int(sys.argv[4])),
            "import": whole_import,
        }[sys.argv[1]]()
    )
