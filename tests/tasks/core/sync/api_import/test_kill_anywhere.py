"""An import that is killed at any step and run again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("after", "read"), [("retry", "pages"), ("next-run", "pages"), ("next-run", "slices")]
)
def test_no_record_is_lost_or_doubled_wherever_the_process_dies(
    tmp_path: Path, marketplace_api, earlier, after, read
):
    """SIGKILL before or after each write, then a retry or the next run: every order is in once."""
    good = [marketplace_api.place(1, at=earlier(-number))[0] for number in (0, 1, 1, 1, 2, 3)]
    [bad] = marketplace_api.place(1, at=earlier(-1))
    marketplace_api.change(bad, at=earlier(-1), amount="-1.00")
    block = marketplace_api.block().model_dump(mode="json", context={"include_secrets": True})
    block.pop("block_type_slug", None)
    script = Path(__file__).with_name("kill_import.py")
    slices_from = [earlier(0).isoformat()] if read == "slices" else []
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), after, json.dumps(block), *slices_from],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    outcomes = [json.loads(line) for line in done.stdout.splitlines()]
    assert len([outcome for outcome in outcomes if not outcome["ended"]]) > 15
    for outcome in outcomes:
        assert outcome["orders"] == good, outcome
        assert outcome["rejects"] == [bad], outcome
        assert outcome["cursor"] == f"{earlier(-3):%Y-%m-%dT%H:%M:%S.000000Z}", outcome
        assert outcome["windows"] == [], outcome
