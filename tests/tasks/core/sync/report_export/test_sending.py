"""Built reports to folders, as mails and as text messages."""

from __future__ import annotations

import dataclasses
import hashlib

import pytest

from blocks.errors import MisconfiguredError
from tasks.core.connectors.folders.local import LocalFiles
from tasks.core.connectors.folders.protocol import TargetExistsError
from tasks.core.formats.reports.building import build_report
from tasks.core.formats.reports.csv_report import CsvReport
from tasks.core.sync.report_export.delivery_ledger import DeliveryLease, Receipt
from tasks.core.sync.report_export.destinations import (
    FolderDestination,
    MailDestination,
    SmsDestination,
)
from tasks.core.sync.report_export.sending import (
    BuiltReport,
    put_report,
    report_mail,
    report_sms,
)

FIRST = DeliveryLease("ab" * 32, "there", 1, 1, 1, uncertain=False, previous=None)
UNCERTAIN = dataclasses.replace(FIRST, attempt=2, uncertain=True)
SECOND = dataclasses.replace(FIRST, revision=2)
THERE = FolderDestination(block="local-folder/office", folder="/reports/")


@pytest.fixture
def built(tmp_path, report, rows) -> BuiltReport:
    file = build_report(tmp_path / "built", report, rows, CsvReport())
    assert file is not None
    return BuiltReport(report, file)


@pytest.fixture
def folder(tmp_path) -> LocalFiles:
    (tmp_path / "office").mkdir()
    return LocalFiles(tmp_path / "office", system="file:///office")


def content(tmp_path) -> dict[str, bytes]:
    root = tmp_path / "office"
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file()
    }


def test_a_file_is_stored_and_its_receipt_says_where(tmp_path, folder, built):
    """Name, size, digest and a link come back."""
    receipt = put_report(folder, built, THERE, FIRST)
    path = "reports/sales-2026-07-16.csv"
    assert content(tmp_path) == {path: built.file.path.read_bytes()}
    assert receipt == Receipt(
        built.file.name, built.file.size, built.file.sha256, f"file:///office/{path}"
    )


def test_a_link_can_be_one_for_browsers(folder, built):
    """Where the folder is served by a web server, links lead there."""
    there = THERE.model_copy(update={"link_base_url": "https://files.example.org/r/"})
    link = put_report(folder, built, there, FIRST).link
    assert link == "https://files.example.org/r/sales-2026-07-16.csv"


def test_a_stranger_is_not_overwritten_unless_asked(tmp_path, folder, built):
    """A file of that name which this report did not put there stays, by default."""
    strange = tmp_path / "office" / "reports" / built.file.name
    strange.parent.mkdir()
    strange.write_text("not ours")
    with pytest.raises(TargetExistsError, match="move it away and press Retry, or let"):
        put_report(folder, built, THERE, FIRST)
    assert strange.read_text() == "not ours"
    put_report(folder, built, THERE.model_copy(update={"existing": "overwrite"}), FIRST)
    assert strange.read_bytes() == built.file.path.read_bytes()


def test_an_uncertain_attempt_recognises_its_own_file(tmp_path, folder, built):
    """What an attempt stored and could not record is not stored again."""
    put_report(folder, built, THERE, FIRST)
    path = tmp_path / "office" / "reports" / built.file.name
    before = path.stat().st_mtime_ns, path.stat().st_ino
    for lease in (UNCERTAIN, FIRST):  # also when nobody noticed that the answer was lost
        put_report(folder, built, THERE, lease)
        assert (path.stat().st_mtime_ns, path.stat().st_ino) == before


def test_an_uncertain_attempt_does_not_replace_what_is_not_its_own(tmp_path, folder, built):
    """Files appear whole: what has other content was not left by an earlier attempt."""
    path = tmp_path / "office" / "reports" / built.file.name
    path.parent.mkdir()
    for other in (b"half a file", b"x" * built.file.size):
        path.write_bytes(other)
        with pytest.raises(TargetExistsError):
            put_report(folder, built, THERE, UNCERTAIN)
        assert path.read_bytes() == other


def stored(path, text: str) -> Receipt:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return Receipt(path.name, len(text), hashlib.sha256(text.encode()).hexdigest(), None)


def test_a_new_revision_replaces_the_file_whatever_its_name_was(tmp_path, folder, built):
    """There is one file per period, also when format or name template changed in between."""
    for name in ("old name.pdf", built.file.name):
        before = stored(tmp_path / "office" / "reports" / name, "revision 1")
        put_report(folder, built, THERE, dataclasses.replace(SECOND, previous=before))
        assert content(tmp_path) == {f"reports/{built.file.name}": built.file.path.read_bytes()}


def test_a_new_revision_replaces_no_stranger_under_its_new_name(tmp_path, folder, built):
    """What this report delivered under another name says nothing of a file of this one."""
    before = stored(tmp_path / "office" / "reports" / "old name.pdf", "revision 1")
    stored(tmp_path / "office" / "reports" / built.file.name, "not ours")
    with pytest.raises(TargetExistsError):
        put_report(folder, built, THERE, dataclasses.replace(SECOND, previous=before))
    assert content(tmp_path) == {
        "reports/old name.pdf": b"revision 1",
        f"reports/{built.file.name}": b"not ours",
    }


def test_what_came_in_the_place_of_an_earlier_revision_stays(tmp_path, folder, built):
    """Under its old name only the file that this report delivered is removed."""
    old = tmp_path / "office" / "reports" / "old name.pdf"
    before = stored(old, "revision 1")
    old.write_text("not ours")
    put_report(folder, built, THERE, dataclasses.replace(SECOND, previous=before))
    assert old.read_text() == "not ours"


def test_a_mail_tells_the_totals_and_keeps_its_key(built):
    """Subject and text are filled; every attempt at a revision has one key, the next another."""
    there = MailDestination(
        block="mail-server/office",
        to=("boss@example.org",),
        subject="{title}: {rows} rows",
        text="Good evening, here is {name}.",
    )
    mail = report_mail(built, there, FIRST, None)
    assert mail.subject == "Weekly sales: 3 rows"
    assert mail.text.startswith("Good evening, here is sales-2026-07-16.csv.\nWeekly sales\n")
    assert "Total: 1,234.40" in mail.text
    assert mail.attachment is not None
    assert mail.attachment.name == built.file.name
    assert mail.key == report_mail(built, there, UNCERTAIN, None).key
    assert mail.key != report_mail(built, there, SECOND, None).key


def test_a_mail_without_attachment_needs_a_link(built):
    """A mail that brings neither file nor link is not sent."""
    there = MailDestination(block="mail-server/office", to=("a@b.c",), attach=False)
    assert (
        "https://x.example/r.csv"
        in report_mail(built, there, FIRST, "https://x.example/r.csv").text
    )
    with pytest.raises(MisconfiguredError, match="no link to send"):
        report_mail(built, there, FIRST, None)


def test_a_text_message_is_short_and_has_the_link(built):
    """Number, filled text and link."""
    there = SmsDestination(block="sms-account/office", to="+4915112345678", text="{title} {rows}")
    message = report_sms(built, there, "https://x.example/r.csv")
    assert message.text == "Weekly sales 3 https://x.example/r.csv"


@pytest.mark.parametrize("template", ["{titel}", "{title.__class__}", "{rows!r}", "{rows:d}", "{}"])
def test_a_text_with_an_unknown_field_is_refused(built, template):
    """Typing errors and attribute look-ups are named, not sent."""
    with pytest.raises(ValueError, match=r"known fields are \{title\}"):
        built.fill(template)
