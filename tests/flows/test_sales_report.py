"""The report export as a whole: the application, a Prefect server and real destinations."""

from __future__ import annotations

import io
import shutil
import uuid
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import httpx
import openpyxl
import pytest

from blocks.http_api import ApiKeyAuth, HttpApi
from blocks.local_folder import LocalFolder
from flows.sales_report.flow import sales_report
from flows.sales_report.sales import sales_of
from sandbox.systems import azure_files_api, google_drive_api, mail_server, twilio_api
from tasks.core.formats.reports.period import Period

FOLDER = {"kind": "folder", "block": "local-folder/office", "folder": "reports"}
DRIVE = {"kind": "folder", "block": "google-drive-account/office", "folder": "2026"}
AZURE = {"kind": "folder", "block": "azure-file-share/office"}
SFTP = {"kind": "folder", "block": "sftp-server/partner", "folder": "in"}
MAIL = {"kind": "mail", "block": "mail-server/office", "to": ["boss@example.org"]}
SMS = {"kind": "sms", "block": "sms-account/office", "to": "+4915112345678"}
THURSDAY = {
    "report": "weekly-sales",
    "title": "Weekly sales",
    "period": {"weekday": "thursday", "at": "19:00", "zone": "Europe/Berlin"},
    "scheduled_for": "2026-07-23T17:00:00Z",
    "delivery_retries": 0,
}
NAME = "weekly-sales-2026-07-16.xlsx"


def order(number: int, at: str, total: str = "10.50", currency: str = "EUR") -> dict:
    return {
        "order_no": f"SO-{number}",
        "customer": "Žižka & syn",
        "ordered_at": at,
        "status": "paid",
        "total": total,
        "currency": currency,
        "lines": [{"sku": "1", "quantity": number, "unit_price": "1.00"}],
    }


def store(own_app, *orders: dict) -> None:
    headers = {"X-API-Key": own_app.api_key, "Idempotency-Key": uuid.uuid4().hex}
    answer = httpx.post(
        f"{own_app.base_url}/api/v1/orders/batch", json={"records": orders}, headers=headers
    )
    assert answer.is_success, answer.text


def test_an_order_that_changes_while_the_list_is_read_counts_once():
    """Its later version counts: the list is in the order of change."""
    before = order(1, "2026-07-20T10:00:00Z")
    orders = [before, order(2, "2026-07-21T10:00:00Z"), {**before, "status": "cancelled"}]
    period = Period(datetime(2026, 7, 16, tzinfo=UTC), datetime(2026, 7, 23, tzinfo=UTC), "UTC")
    _, rows = sales_of(orders, period, name="weekly", title="Weekly")
    assert rows[["order_no", "status"]].values.tolist() == [
        ["SO-1", "cancelled"],
        ["SO-2", "paid"],
    ]


@pytest.fixture(scope="module")
def outside(tmp_path_factory, prefect_server_of_session, sftp_server_of_session):
    """Mail, text messages, Drive, Azure, SFTP and a folder, known to Prefect as blocks."""
    root = tmp_path_factory.mktemp("office")
    with ExitStack() as running:
        systems = {
            "mail": running.enter_context(mail_server.start(tmp_path_factory.mktemp("mail"))),
            "sms": running.enter_context(twilio_api.start()),
            "drive": running.enter_context(google_drive_api.start()),
            "azure": running.enter_context(azure_files_api.start()),
        }
        for system in systems.values():
            system.block().save("office", overwrite=True)
        sftp_server_of_session.block().save("partner", overwrite=True)
        LocalFolder(path=str(root)).save("office", overwrite=True)
        yield {**systems, "root": root, "application": None}


@pytest.fixture
def office(tmp_path: Path, runs, own_app, outside, sftp_server, monkeypatch) -> Path:
    """The folder, empty as all destinations are, and an application with some orders."""
    monkeypatch.setenv("INTEGRATIONS_DATABASE_URL", f"sqlite:///{tmp_path / 'state.db'}")
    monkeypatch.setenv("INTEGRATIONS_REPORTS_DIR", str(tmp_path / "built"))
    outside["mail"].messages.clear()
    for name in ("sms", "drive", "azure"):
        outside[name].reset()
    shutil.rmtree(outside["root"])
    outside["root"].mkdir()
    if outside["application"] != own_app.base_url:  # it stays; saving a block takes a while
        HttpApi(base_url=f"{own_app.base_url}/api/v1", auth=ApiKeyAuth(key=own_app.api_key)).save(
            "own-app", overwrite=True
        )
        outside["application"] = own_app.base_url
    store(
        own_app,
        order(1, "2026-07-16T16:59:59Z"),  # the week before
        order(2, "2026-07-16T17:00:00Z"),
        order(3, "2026-07-23T16:59:59Z", "4.50", "USD"),
        order(4, "2026-07-23T17:00:00Z"),  # the week after
    )
    return outside["root"]


def asked(own_app) -> int:
    return own_app.requests()["counts"].get("GET /api/v1/orders", 0)


def test_a_report_goes_everywhere_and_is_told_in_the_ui(
    office, runs, outside, sftp_server, tmp_path
):
    """One file of the right week reaches every destination; messages hold the first link."""
    everywhere = [FOLDER, SFTP, DRIVE, AZURE, MAIL, SMS]
    state = runs.start(sales_report, destinations=everywhere, **THURSDAY)
    assert state.is_completed(), state.message
    assert state.message == f"{NAME}: 6 of 6 destinations delivered"
    content = (office / "reports" / NAME).read_bytes()
    data = openpyxl.load_workbook(io.BytesIO(content))["Data"]
    cells = [[cell.value for cell in row] for row in data.iter_rows()]
    assert cells[0][-2:] == ["Total EUR", "Total USD"]
    assert [row[0] for row in cells[1:]] == ["SO-2", "SO-3", "Total"]
    assert cells[1][-2:] == [10.5, None]
    assert (sftp_server.files / "in" / NAME).read_bytes() == content
    assert outside["drive"].paths() == {f"2026/{NAME}": content}
    assert outside["azure"].files == {NAME: content}
    message = outside["mail"].messages[0].message
    assert next(iter(message.iter_attachments())).get_payload(decode=True) == content
    link = f"file://{office}/reports/{NAME}"
    assert outside["sms"].messages[0]["body"].endswith(link)
    [artifact] = runs.artifacts()
    assert artifact.key == "report-weekly-sales"
    assert "Total EUR | 10.50" in artifact.data
    assert f"`{link}`" in artifact.data
    assert "/file/d/" in artifact.data, "the link to the file in Drive"
    assert not list((tmp_path / "built").iterdir()), "nothing is kept when all have it"


def test_a_retry_delivers_the_same_file_only_where_it_is_missing(
    office, runs, own_app, outside, sftp_server
):
    """After a failure at the third destination the first two are not delivered again."""
    sftp_server.faults.read_only = True
    there = [FOLDER, MAIL, SFTP]
    state = runs.start(sales_report, destinations=there, **THURSDAY)
    assert state.is_failed()
    assert state.message.startswith(
        f"{NAME}: 2 of 3 destinations delivered; sftp-server/partner:in"
    )
    content = (office / "reports" / NAME).read_bytes()
    store(own_app, order(5, "2026-07-20T12:00:00Z"))  # too late for a report that is out already
    sftp_server.faults.read_only = False
    before = asked(own_app)
    state = runs.retry(sales_report)
    assert state.is_completed(), state.message
    assert state.message == f"{NAME}: 1 of 3 destinations delivered, 2 had it already"
    assert (sftp_server.files / "in" / NAME).read_bytes() == content
    assert len(outside["mail"].messages) == 1
    assert asked(own_app) == before, "the file was kept, and nothing asked again"


def test_another_run_of_the_period_says_so_or_replaces(office, runs, own_app, outside):
    """A repeated run leaves what is there; with `replace` it brings the newer numbers, once."""
    there = [FOLDER, MAIL]
    runs.start(sales_report, destinations=there, **THURSDAY)
    first = (office / "reports" / NAME).read_bytes()
    store(own_app, order(5, "2026-07-20T12:00:00Z"))
    late = THURSDAY | {"scheduled_for": "2026-07-27T09:00:00Z"}
    state = runs.start(sales_report, destinations=there, **late)
    assert state.message == f"{NAME}: 0 of 2 destinations delivered, 2 had it already"
    assert (office / "reports" / NAME).read_bytes() == first
    state = runs.start(sales_report, destinations=there, replace=True, **late)
    assert state.message == f"{NAME}: 2 of 2 destinations delivered"
    assert (office / "reports" / NAME).read_bytes() != first
    assert [path.name for path in (office / "reports").iterdir()] == [NAME]
    ids = [received.message["Message-ID"] for received in outside["mail"].messages]
    assert len(ids) == len(set(ids)) == 2, "the second mail is no copy of the first"


def test_a_short_failure_is_retried_within_the_run(office, runs, outside):
    """A busy destination costs another attempt of its task, and no second message."""
    outside["drive"].faults.refuse = (403, "userRateLimitExceeded")
    outside["drive"].faults.refuse_times = 1
    quick = THURSDAY | {"delivery_retries": 2, "delivery_retry_delay_s": 0}
    state = runs.start(sales_report, destinations=[DRIVE, MAIL], **quick)
    assert state.is_completed(), state.message
    assert list(outside["drive"].paths()) == [f"2026/{NAME}"]
    assert len(outside["mail"].messages) == 1


@pytest.mark.parametrize(
    ("no_data", "completed", "files"), [("empty", True, 1), ("skip", True, 0), ("fail", False, 0)]
)
def test_no_data_goes_by_policy(office, runs, no_data, completed, files, tmp_path):
    """A week without orders gives an empty report, none, or a failed run."""
    state = runs.start(
        sales_report,
        destinations=[FOLDER],
        no_data=no_data,
        **THURSDAY | {"scheduled_for": "2026-06-04T17:00:00Z"},
    )
    assert state.is_completed() is completed, state.message
    assert len(list(office.rglob("*.xlsx"))) == files
    assert files or "28 May 2026" in state.message
    assert not list((tmp_path / "built").iterdir()), "nothing of it is kept"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"destinations": [FOLDER, FOLDER]}, "named twice"),
        ({"name_template": "{period}"}, "known fields are"),
        ({"destinations": [{**MAIL, "subject": "{sum}"}]}, "known fields are"),
    ],
)
def test_a_wrong_parameter_says_what_to_mend(office, runs, outside, changes, says):
    """The run fails with a sentence for its operator, and nothing goes out."""
    state = runs.start(sales_report, **{"destinations": [FOLDER], **THURSDAY, **changes})
    assert state.is_failed()
    assert says in state.message
    assert outside["mail"].messages == []
