"""One built report to one destination, in a way that may be repeated."""

from __future__ import annotations

import string
from typing import NamedTuple, Protocol, runtime_checkable
from urllib.parse import quote

from blocks.errors import MisconfiguredError, UpstreamFailedError
from tasks.core.connectors.folders.contents import find_content
from tasks.core.connectors.folders.paths import join
from tasks.core.connectors.folders.protocol import RemoteFolder, TargetExistsError
from tasks.core.connectors.sms import TextMessage, sms_text
from tasks.core.connectors.smtp import Attachment, Mail
from tasks.core.formats.reports.building import ReportFile
from tasks.core.formats.reports.pdf_report import shown_value
from tasks.core.formats.reports.report import Report
from tasks.core.sync.report_export.delivery_ledger import DeliveryLease, Receipt
from tasks.core.sync.report_export.destinations import (
    FolderDestination,
    MailDestination,
    SmsDestination,
)


@runtime_checkable
class HasLinks(Protocol):
    """A place that can say where people see a file in a browser."""

    def link(self, path: str) -> str | None:
        """The address, or None if there is none."""
        ...


class BuiltReport(NamedTuple):
    """A report and the file it became."""

    report: Report
    file: ReportFile

    def fill(self, template: str) -> str:
        """Fill a text's {title}, {period}, {rows} and {name}.

        Raises:
            ValueError: It has another field.
        """
        values = {
            "title": self.report.title,
            "period": str(self.report.period),
            "rows": f"{self.file.summary.rows:,}",
            "name": self.file.name,
        }
        parts: list[str] = []
        for literal, field, spec, conversion in string.Formatter().parse(template):
            parts.append(literal)
            if field is None:
                continue
            if field not in values or spec or conversion:
                known = ", ".join(f"{{{name}}}" for name in values)
                raise ValueError(f"the text has {{{field}}}; known fields are {known}")
            parts.append(values[field])
        return "".join(parts)

    def totals(self) -> list[tuple[str, str]]:
        """Heading and shown value of each total."""
        return [
            (column.heading, shown_value(self.file.summary.totals[column.name], column))
            for column in self.report.columns
            if column.total
        ]


def put_report(
    folder: RemoteFolder, built: BuiltReport, destination: FolderDestination, lease: DeliveryLease
) -> Receipt:
    """Store the file in its folder so that it is there once, whole and the right one.

    A file that an unrecorded attempt left is recognised by its content. What this report itself
    delivered before is replaced, also when the new file has another name; nobody else's is,
    unless the destination says so.

    Raises:
        TargetExistsError: There is a file of that name which is not this report's.
        IntegrationError: As `RemoteFolder.put`.
    """
    file = built.file
    path = join(destination.folder.strip("/"), file.name)
    previous = lease.previous
    is_renamed = previous is not None and previous.name != file.name
    replaces = previous is not None and not is_renamed
    if not (lease.uncertain and _is_there(folder, path, file)):
        _put(folder, path, file, overwrite=replaces or destination.existing == "overwrite")
    if previous is not None and is_renamed:
        before = join(destination.folder.strip("/"), previous.name)
        if find_content(folder, before, size=previous.size, sha256=previous.sha256):
            folder.delete(before)
    return Receipt(file.name, file.size, file.sha256, _link(folder, path, destination))


def report_mail(
    built: BuiltReport, destination: MailDestination, lease: DeliveryLease, link: str | None
) -> Mail:
    """The mail that brings the report: totals in the text, the file or its link with it."""
    lines = [built.fill(destination.text)] if destination.text else []
    lines += [built.report.title, str(built.report.period), ""]
    lines += [f"{heading}: {value}" for heading, value in built.totals()]
    lines.append(f"Rows: {built.file.summary.rows:,}")
    attachment = Attachment(built.file.path, built.file.name, built.file.media_type)
    if not destination.attach:
        if link is None:
            raise MisconfiguredError(
                "there is no link to send: deliver to a folder that has one first, or attach",
                system=destination.block,
                operation="send",
                record=built.file.name,
            )
        lines += ["", f"{built.file.name}: {link}"]
    return Mail(
        to=destination.to,
        subject=built.fill(destination.subject),
        text="\n".join(lines),
        attachment=attachment if destination.attach else None,
        link=link,
        key=lease.key,
    )


def report_sms(built: BuiltReport, destination: SmsDestination, link: str | None) -> TextMessage:
    """The text message that tells of the report.

    Raises:
        ValueError: The link alone is too long.
    """
    text = built.fill(destination.text)
    return TextMessage(destination.to, sms_text(text, link, max_segments=destination.max_segments))


def _put(folder: RemoteFolder, path: str, file: ReportFile, *, overwrite: bool) -> None:
    try:
        with file.path.open("rb") as content:
            stored = folder.put(path, content, size=file.size, overwrite=overwrite)
    except TargetExistsError as exc:
        # It can be there by an attempt that got no answer.
        if _is_there(folder, path, file):
            return
        raise TargetExistsError(
            "there is a file of that name, and not this one; move it away and press Retry, or let "
            "the destination overwrite (existing: overwrite)",
            system=folder.system,
            operation="put",
            record=path,
        ) from exc
    if stored.size != file.size:
        raise UpstreamFailedError(
            f"{stored.size:,} of {file.size:,} bytes arrived",
            system=folder.system,
            operation="put",
            record=path,
        )


def _is_there(folder: RemoteFolder, path: str, file: ReportFile) -> bool:
    return find_content(folder, path, size=file.size, sha256=file.sha256) is not None


def _link(folder: RemoteFolder, path: str, destination: FolderDestination) -> str:
    if destination.link_base_url:
        base = destination.link_base_url.rstrip("/")
        return f"{base}/{quote(path.removeprefix(destination.folder.strip('/')).lstrip('/'))}"
    found = folder.link(path) if isinstance(folder, HasLinks) else None
    return found or f"{folder.system}/{path}"
