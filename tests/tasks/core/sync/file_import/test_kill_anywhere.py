"""An import that is killed at any step and run again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("after", ["retry", "next-run"])
@pytest.mark.parametrize("kind", ["good", "bad"])
def test_no_row_is_lost_or_doubled_wherever_the_process_dies(tmp_path: Path, after, kind):
    """SIGKILL before or after each write, then a retry or the next run: every row is in once."""
    script = Path(__file__).with_name("kill_points.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), after, kind],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    outcomes = [json.loads(line) for line in done.stdout.splitlines()]
    killed = [outcome for outcome in outcomes if not outcome["ended"]]
    assert len(killed) > (15 if kind == "good" else 5)
    for outcome in outcomes:
        if kind == "good":
            assert outcome["rows"] == [f"s{n}" for n in range(7)], outcome
            assert outcome["files"] == ["archive/f.csv", "archive/f.csv.rejects.csv"], outcome
        else:
            assert outcome["rows"] == [], outcome
            assert outcome["files"] == ["error/f.csv", "error/f.csv.err.json"], outcome
