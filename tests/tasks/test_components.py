"""The flows of docs/components.md, run as they stand there, do what they say at the other side."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from prefect import Flow
from sqlalchemy import text

import tasks.api
import tasks.exports
import tasks.folders
import tasks.mail
import tasks.sms
import tasks.sql
from blocks.http_api import ApiKeyAuth, HttpApi
from blocks.local_folder import LocalFolder
from blocks.sql_database import SqlDatabase
from sandbox.systems import fulfilment_api, mail_server, twilio_api

# Prefect's own clients leave sockets to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.usefixtures("prefect_server"),
]

GUIDE = (Path(__file__).parents[2] / "docs/components.md").read_text()
SOURCES = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
COMPONENTS = {
    tasks.api: {"call_api", "fetch_page", "send_batch"},
    tasks.folders: {"list_files", "download_file", "upload_file", "move_file", "delete_file"},
    tasks.mail: {"send_mail"},
    tasks.sms: {"send_sms"},
    tasks.sql: {"write_report_table"},
    tasks.exports: {"send_request"},
}


def example(name: str) -> Flow[..., Any]:
    """The flow of that name in the guide, made of the guide's own text."""
    [source] = [source for source in SOURCES if f"def {name}(" in source]
    namespace: dict[str, Any] = {"__name__": "components"}
    exec(compile(source, "docs/components.md", "exec"), namespace)
    return namespace[name]


def test_every_component_has_an_example():
    """Each task that is called a component is awaited or called in a flow of the guide."""
    called = {name for source in SOURCES for name in re.findall(r"(\w+)\(", source)}
    for module, names in COMPONENTS.items():
        assert names <= set(module.__all__) & called
    for source in SOURCES:
        body = source.partition("@flow\n")[2]
        assert len(body.splitlines()) <= 15


def test_http_apis(own_app):
    """An item is put, found on a page, and restocked by a batch."""
    auth = ApiKeyAuth(key=own_app.api_key)
    HttpApi(base_url=f"{own_app.base_url}/api/v1", auth=auth).save("shop", overwrite=True)
    own_app.http.put("/api/v1/inventory/X", json={"sku": "X", "name": "X", "quantity": 7})
    asyncio.run(example("restock")())
    stock = {each["sku"]: each["quantity"] for each in own_app.records("inventory")}
    assert stock == {"W-1": 5, "X": 7}
    assert own_app.requests()["counts"]["POST /api/v1/inventory/batch"] == 1


def test_files(sftp_server, tmp_path):
    """What has content is copied and moved, what has none is deleted."""
    sftp_server.block().save("partner", overwrite=True)
    (tmp_path / "archive").mkdir()
    LocalFolder(path=tmp_path / "archive").save("archive", overwrite=True)
    incoming = sftp_server.files / "incoming"
    incoming.mkdir()
    (incoming / "stock.csv").write_text("sku;quantity\n")
    (incoming / "empty.csv").touch()
    asyncio.run(example("fetch_stock_lists")())
    assert list(incoming.iterdir()) == []
    assert (sftp_server.files / "done/stock.csv").read_text() == "sku;quantity\n"
    assert [path.name for path in (tmp_path / "archive").iterdir()] == ["stock.csv"]
    assert (tmp_path / "archive/stock.csv").read_text() == "sku;quantity\n"


def test_mail_and_sms(tmp_path):
    """One message is handed in, and one text is taken."""
    with mail_server.start(tmp_path) as office, twilio_api.start() as phone:
        office.block().save("office", overwrite=True)
        phone.block().save("office", overwrite=True)
        asyncio.run(example("tell_of_a_late_truck")())
        [mail], [message] = office.messages, phone.messages
    assert mail.recipients == ("dock@example.com",)
    assert mail.message["Subject"] == "Truck 7"
    assert mail.message.get_content().strip() == "Two hours late."
    assert (message["to"], message["body"]) == ("+4915112345678", "Dock 3, please.")


def test_sql_tables(tmp_path):
    """A row of the same key is replaced, the others stay."""
    block = SqlDatabase(kind="sqlite", database=str(tmp_path / "warehouse.db"))
    block.save("warehouse", overwrite=True)
    with block.get_client().begin() as connection:
        connection.execute(text("CREATE TABLE sales (day TEXT, region TEXT, total INTEGER)"))
        connection.execute(
            text("INSERT INTO sales VALUES ('2026-03-01', 'North', 1), ('2026-03-01', 'South', 2)")
        )
    asyncio.run(example("publish_sales")())
    with block.get_client().connect() as connection:
        rows = connection.execute(text("SELECT region, total FROM sales ORDER BY region")).all()
    assert [tuple(row) for row in rows] == [("North", 12), ("South", 2)]


def test_requests_made_of_events():
    """The shipment is made of the template, once for its key, and its id comes back."""
    with fulfilment_api.start() as carrier:
        carrier.block().save("carrier", overwrite=True)
        ship = example("ship")
        for _ in range(2):
            assert asyncio.run(ship("SO-1", "Ann")) == {"shipment": "F-100001"}
        assert carrier.shipments["SO-1"]["recipient"] == "Ann"
        assert [effect.idempotency_key for effect in carrier.effects] == ["SO-1"]
