"""JSON Lines reports."""

from __future__ import annotations

import json

from tasks.core.formats.reports.json_lines_report import write_json_lines


def test_every_row_is_an_object(tmp_path, report, rows):
    """Amounts are exact strings, instants carry their offset, missing values are null."""
    rows[2]["lines"] = 2**70
    write_json_lines(tmp_path / "r.jsonl", report, rows)
    lines = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert lines[0] == {
        "order_no": "SO-1",
        "customer": "Müller & Söhne, GmbH",
        "ordered_at": "2026-07-17T10:30:00+02:00",
        "due": "2026-08-01",
        "lines": 3,
        "weight": 0.5,
        "total": "1234.50",
        "paid": True,
    }
    assert lines[1]["due"] is None
    assert lines[2]["lines"] == str(2**70)
