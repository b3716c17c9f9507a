"""A change of a watched file is noticed, however small; what is installed is not the project's."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from deployments.services.launcher.loaded_code import CodeWatch, files_to_watch, project_modules


@pytest.fixture
def watched(tmp_path):
    path = tmp_path / "shop.py"
    path.write_text("PRICE = 1\n")
    os.utime(path, (1_000_000_000, 1_000_000_000))
    return path


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_text("PRICE = 2\n"),
        lambda path: path.unlink(),
        lambda path: (path.write_text("PRICE = 22\n"), os.utime(path, (10**9, 10**9))),
        lambda path: path.replace(path.with_name("moved.py")),
    ],
)
def test_a_change_is_noticed(watched, change):
    """New content, another size under the old time, removal and renaming all count."""
    watch = CodeWatch([watched], imported_since=time.time())
    assert not watch.is_stale()
    change(watched)
    assert watch.is_stale()


def test_a_file_that_appears_is_noticed(tmp_path):
    """A watched file may be made later."""
    watch = CodeWatch([tmp_path / "prefect.yaml"], imported_since=time.time())
    assert not watch.is_stale()
    (tmp_path / "prefect.yaml").touch()
    assert watch.is_stale()


def test_a_change_during_the_imports_is_not_missed(watched):
    """What was written after the imports began may not be what was imported."""
    os.utime(watched)
    assert CodeWatch([watched], imported_since=time.time() - 60).is_stale()


def test_a_clock_that_runs_ahead_does_no_harm(watched):
    """A file from the future is no reason to import for ever."""
    os.utime(watched, (time.time() + 3600, time.time() + 3600))
    assert not CodeWatch([watched], imported_since=time.time() - 60).is_stale()


def test_the_project_s_modules_are_told_from_others():
    """Our own modules are the project's; pytest's, psutil's and Python's are not."""
    project = project_modules()
    assert "deployments.services.launcher.loaded_code" in project
    assert not {"pytest", "json", "os", "sys", "yaml", "_socket"} & set(project)


def test_the_place_of_a_syntax_error_is_watched(tmp_path):
    """A file that could not be compiled is watched, so that mending it is noticed."""
    path = tmp_path / "broken.py"
    path.write_text("def (\n")
    with pytest.raises(SyntaxError) as caught:
        compile(path.read_text(), str(path), "exec")
    assert path in files_to_watch([caught.value])


def test_modules_below_a_namespace_package_are_lent(tmp_path):
    """`flows` has no file of its own: what is below it is lent, and found where it is added."""
    first, second = tmp_path / "first", tmp_path / "second"
    for project, name in ((first, "orders"), (second, "returns")):
        (project / "flows" / name).mkdir(parents=True)
        (project / "flows" / name / "__init__.py").touch()
    script = """
import sys
from deployments.services.launcher.loaded_code import ReusedModules, project_modules
import flows.orders
before = flows.orders
loaded = {name: each for name, each in project_modules().items() if name.startswith("flows")}
ReusedModules(loaded).install()
sys.path.append(sys.argv[1])
import flows.orders, flows.returns
print(sorted(loaded), flows.orders is before, flows.returns.__file__)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(second)], env=os.environ | {"PYTHONPATH": str(first)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    returns = second / "flows" / "returns" / "__init__.py"
    assert done.stdout == f"['flows', 'flows.orders'] True {returns}\n"
