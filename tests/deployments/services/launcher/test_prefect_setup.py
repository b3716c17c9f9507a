"""Prefect's settings in a fork: those of its environment, read anew only if they may differ."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# Prefect keeps settings for the whole process, so each case has one of its own.
CASE = """
import os
from pathlib import Path
from prefect.settings import get_current_settings
from deployments.services.launcher.prefect_setup import PrefectSetup
setup = PrefectSetup()
known = get_current_settings()
{change}
setup.refresh()
now = get_current_settings()
assert {holds}, now.logging.level
"""

AS_THE_WORKER = """
os.environ.update(known.to_environment_variables(exclude_unset=True))
os.environ["PREFECT__FLOW_RUN_ID"] = "a run's"
"""


PROFILE = 'active="p"\n[profiles.p]\nPREFECT_API_KEY="k"'


@pytest.mark.parametrize(
    ("change", "holds"),
    [
        (AS_THE_WORKER, "now is known"),
        ("os.environ['PREFECT_LOGGING_LEVEL'] = 'DEBUG'", "now.logging.level == 'DEBUG'"),
        ("del os.environ['PREFECT_LOGGING_LEVEL']", "now.logging.level == 'INFO'"),
        ("Path('prefect.toml').write_text('api.key = \"k\"')", "now.api.key"),
        ("Path('.env').write_text('PREFECT_API_KEY=k')", "now.api.key"),
        (f"Path('home/profiles.toml').write_text({PROFILE!r})", "now.api.key"),
    ],
)
def test_settings_are_those_of_the_run(change: str, holds: str, tmp_path: Path):
    """What a run's environment, folder and profile say holds; the worker's own is known."""
    (tmp_path / "home").mkdir()
    environment = {n: v for n, v in os.environ.items() if not n.startswith("PREFECT_")} | {
        "PREFECT_HOME": str(tmp_path / "home"),
        "PREFECT_API_URL": "http://127.0.0.1:4200/api",
        "PREFECT_LOGGING_LEVEL": "WARNING",
    }
    script = CASE.format(change=change, holds=holds)
    done = subprocess.run(
        [sys.executable, "-c", script],
        check=False, cwd=tmp_path, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
