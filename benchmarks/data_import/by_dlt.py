"""The case of dlt: its REST client with a paginator by page number."""

from __future__ import annotations

import sys

from dlt.sources.helpers.rest_client import RESTClient
from dlt.sources.helpers.rest_client.paginators import PageNumberPaginator
from sink import Sink, measure


def dlt(sink: Sink) -> None:
    """As its documentation shows."""
    client = RESTClient(
        base_url=sys.argv[2],
        paginator=PageNumberPaginator(base_page=1, total_path="total_pages"),
        data_selector="records",
    )
    for page in client.paginate("/orders"):
        sink.write_page(page)


if __name__ == "__main__":
    measure(dlt)
