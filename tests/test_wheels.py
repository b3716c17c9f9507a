"""What is shipped: the product, and the sandbox for those who test integrations of their own."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
import sysconfig
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = Path(__file__).parents[1]
SHIPPED = ("blocks", "tasks", "flows", "deployments")
# What is loaded only when such a place is opened, and what it needs of an extra.
OF_EXTRAS = {
    "tasks.core.connectors.folders.azure_files": "azure",
    "tasks.core.connectors.folders.azure_files_errors": "azure",
}


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folder of each wheel's content, by the name of its distribution."""
    built = tmp_path_factory.mktemp("wheels")
    for project in (PROJECT, PROJECT / "sandbox"):
        subprocess.run(
            [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", built],
            cwd=project, capture_output=True, check=True,
        )  # fmt: skip
    unpacked = {}
    for wheel in built.glob("*.whl"):
        name = wheel.name.partition("-")[0]
        unpacked[name] = built / name
        ZipFile(wheel).extractall(unpacked[name])
    return unpacked


def run(script: str, *paths: Path, cwd: Path) -> str:
    """What a script says for which these folders are installed instead of the project."""
    # without `site` no .pth file leads to the project
    path = [*map(str, paths), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys\nsys.path += {path}\n{script}"],
        cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    return done.stdout


def metadata(wheel: Path) -> importlib.metadata.Distribution:
    (distribution,) = importlib.metadata.distributions(path=[str(wheel)])
    return distribution


def content(wheel: Path) -> set[str]:
    names = {str(path.relative_to(wheel)) for path in wheel.rglob("*") if path.is_file()}
    return {name for name in names if ".dist-info/" not in name}


def files(*folders: str) -> set[str]:
    """What git knows, or would."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "--deduplicate", *folders],
        cwd=PROJECT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return {name for name in listed.stdout.splitlines() if (PROJECT / name).exists()}


def test_the_product_has_every_file_of_its_packages_and_no_sandbox(wheels):
    """Declarations, samples, certificates and migrations are beside the code that reads them."""
    assert content(wheels["integration_patterns"]) == files(*SHIPPED)


def test_the_sandbox_is_a_wheel_of_its_own(wheels):
    """All of it, and nothing of the product; pytest finds the fixtures by themselves."""
    expected = files("sandbox") - {"sandbox/pyproject.toml"}
    testing = wheels["integration_patterns_testing"]
    assert content(testing) == expected
    offered = metadata(testing).entry_points.select(group="pytest11")
    assert [each.value for each in offered] == ["sandbox.pytest_plugin"]


def test_both_wheels_are_of_one_version(wheels):
    """The stand-ins use the product's inside, so they need the product they were built with."""
    product, testing = (metadata(wheels[name]) for name in sorted(wheels))
    needed = [Requirement(each) for each in testing.requires]
    pinned = [str(each.specifier) for each in needed if each.name == "integration-patterns"]
    assert testing.version == product.version
    assert pinned == [f"=={product.version}"]


def test_the_product_needs_neither_the_sandbox_nor_any_extra(wheels, tmp_path):
    """Each module can be imported where only the product and what it depends on is installed."""
    product = wheels["integration_patterns"]
    modules = [
        ".".join(name.removesuffix(".py").removesuffix("/__init__").split("/"))
        for name in sorted(content(product))
        if name.endswith(".py") and "/migrations/" not in name  # they are Alembic's to load
    ]
    there = depended_on(product)
    absent = {
        package
        for package, distributions in importlib.metadata.packages_distributions().items()
        if not there & set(map(canonicalize_name, distributions))
    }
    assert {"moto", "aiosmtpd", "pytest", "confluent_kafka"} <= absent
    script = f"""
import importlib, importlib.abc, json

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
failed = {{}}
for name in {modules}:
    try:
        importlib.import_module(name)
    except ImportError as exc:
        failed[name] = exc.name
from tasks.core.registry.activation.desired import declared_integrations
print(json.dumps([failed, sorted(declared_integrations())]))
"""
    failed, declared = json.loads(run(script, product, cwd=tmp_path))
    assert failed == OF_EXTRAS
    assert declared == sorted(path.parent.name for path in PROJECT.glob("flows/*/integration.yaml"))


def test_another_project_has_the_fixtures(wheels, tmp_path):
    """Pytest offers the stand-ins of the wheel without a line of configuration."""
    (tmp_path / "test_theirs.py").write_text(
        "def test_it(scripted_api):\n"
        "    import sandbox\n"
        "    assert scripted_api.url\n"
        f"    assert sandbox.__file__.startswith({str(wheels['integration_patterns_testing'])!r})\n"
    )
    script = "import pytest\npytest.main(['-q', '-p', 'no:cacheprovider'])"
    assert "1 passed" in run(script, *wheels.values(), cwd=tmp_path)


def test_the_plugin_imports_nothing_before_it_is_used():
    """It is loaded before a project's own settings of Prefect and Hypothesis are made."""
    script = "import sys, sandbox.pytest_plugin; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "sandbox" in loaded
    assert not loaded & {"prefect", "hypothesis", "blocks", "tasks", "flows", "deployments"}


def depended_on(wheel: Path) -> set[str]:
    """The distributions that come with a wheel when no extra is asked for."""
    waiting = [(Requirement(each), "") for each in metadata(wheel).requires or []]
    seen = set()
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        for wanted in {"", *requirement.extras}:
            if (name, wanted) not in seen:
                seen.add((name, wanted))
                of_it = importlib.metadata.requires(name) or []
                waiting += [(Requirement(each), wanted) for each in of_it]
    return {name for name, _ in seen}
