"""The parent preloads what the deployments' entrypoints need."""

from __future__ import annotations

from deployments.services.launcher.preload import flow_modules, import_all


def test_modules_of_entrypoints(tmp_path):
    """A module entrypoint names its module; what a file entrypoint imports takes its place."""
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "orders.py").write_text(
        "from __future__ import annotations\nimport json, csv\nfrom lxml import etree\n"
        "from . import near\ndef flow():\n    import late\n"
    )
    (tmp_path / "prefect.yaml").write_text(
        "deployments:\n"
        "- {name: a, entrypoint: flows.import_files.flow.import_files}\n"
        "- {name: b, entrypoint: 'flows.prices:quote'}\n"
        "- {name: c, entrypoint: flows/orders.py:flow}\n"
        "- {name: d, entrypoint: flows/missing.py:flow}\n"
        "- {name: e, entrypoint: flows.import_files.flow.other}\n"
        "- {name: f}\n"
    )
    assert flow_modules(tmp_path / "prefect.yaml") == [
        "flows.import_files.flow",
        "flows.prices",
        "__future__",
        "json",
        "csv",
        "lxml",
    ]


def test_no_deployments(tmp_path):
    """A missing or empty file names no modules."""
    path = tmp_path / "prefect.yaml"
    assert flow_modules(path) == []
    path.write_text("")
    assert flow_modules(path) == []
    path.write_text("deployments:\n")
    assert flow_modules(path) == []


def test_a_failing_import_stops_nothing():
    """Every module is tried, and each failure is told with its reason."""
    failures = import_all(["json", "no_such_module_anywhere", "csv"])
    assert list(failures) == ["no_such_module_anywhere"]
    assert isinstance(failures["no_such_module_anywhere"], ModuleNotFoundError)
