"""What people read in the UI about one report: what it adds up to, and where it went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from blocks.errors import IntegrationError
from tasks.core.formats.reports.pdf_report import shown_value
from tasks.core.sync.report_export.delivery_ledger import Receipt
from tasks.core.sync.report_export.sending import BuiltReport

_BAR_CHARACTERS = 24
_IN_LABELS = str.maketrans({char: f"\\{char}" for char in "\\`[]<>|"} | {"\n": " "})
_MARKED = str.maketrans({char: f"\\{char}" for char in "\\`*_{}[]<>()#+-.!|~"} | {"\n": " "})


@dataclass(frozen=True, slots=True)
class DeliveryResult:
    """What became of one destination.

    Attributes:
        destination: Its name.
        result: One word, or two.
        receipt: What is there now, if anything.
        revision: Which one that is.
        error: Why nothing is.
    """

    destination: str
    result: Literal["delivered", "replaced", "already delivered", "failed"]
    receipt: Receipt | None = None
    revision: int = 1
    error: IntegrationError | None = None

    @property
    def reason(self) -> str:
        """The error as people read it."""
        return str(self.error) if self.error else ""


def report_summary(built: BuiltReport, outcomes: Sequence[DeliveryResult]) -> str:
    """Markdown with totals, a chart and a link to each delivered file."""
    file, report = built.file, built.report
    lines = [f"# {_plain(report.title)}", "", _plain(str(report.period)), ""]
    lines += ["| | |", "|---|---:|", f"| Rows | {file.summary.rows:,} |"]
    lines += [f"| {_plain(heading)} | {value} |" for heading, value in built.totals()]
    lines += ["", *_chart(built)]
    lines += ["| Destination | Result | File | Why |", "|---|---|---|---|"]
    lines += [
        f"| {_plain(outcome.destination)} | {_result(outcome)} | {_linked(outcome.receipt)} | "
        f"{_plain(outcome.reason)} |"
        for outcome in outcomes
    ]
    return "\n".join([*lines, "", f"`{file.name}`, {file.size:,} bytes, SHA-256 `{file.sha256}`"])


def summarize(built: BuiltReport, outcomes: Sequence[DeliveryResult]) -> tuple[bool, str]:
    """Whether the run is good, and what it did in one sentence."""
    done = sum(outcome.result in ("delivered", "replaced") for outcome in outcomes)
    before = sum(outcome.result == "already delivered" for outcome in outcomes)
    bad = [outcome for outcome in outcomes if outcome.result == "failed"]
    told = f"{built.file.name}: {done} of {len(outcomes)} destinations delivered"
    if before:
        told += f", {before} had it already"
    if bad:
        told += "; " + "; ".join(f"{outcome.destination}: {outcome.reason}" for outcome in bad)
    return not bad, told


def _chart(built: BuiltReport) -> list[str]:
    chart, bars = built.report.chart, built.file.summary.bars
    if not chart or not bars:
        return []
    value = built.report.columns[built.report.position(chart.value)]
    label = built.report.columns[built.report.position(chart.label)]
    greatest = max(abs(float(amount)) for _, amount in bars) or 1.0
    lines = [f"| {_plain(label.heading)} | {_plain(value.heading)} | |", "|---|---:|---|"]
    for name, amount in bars:
        length = round(abs(float(amount)) / greatest * _BAR_CHARACTERS)
        shown = shown_value(amount, value)
        lines.append(f"| {_plain(name) or '(none)'} | {shown} | {'█' * length} |")
    return [*lines, ""]


def _result(outcome: DeliveryResult) -> str:
    again = f" (revision {outcome.revision})" if outcome.revision > 1 else ""
    return outcome.result + again


def _linked(receipt: Receipt | None) -> str:
    if receipt is None:
        return ""
    if receipt.link and receipt.link.startswith(("http://", "https://")):
        label = receipt.name.translate(_IN_LABELS)  # the UI shows needless escapes in labels
        return f"[{label}](<{receipt.link.translate({ord('>'): '%3E'})}>)"
    return f"`{(receipt.link or receipt.name).replace('`', '')}`"


def _plain(text: str) -> str:
    return text.translate(_MARKED)
