"""The `flow` decorator of integrations: Prefect's own, with three additions.

A deployment that sets one field of a nested setting keeps the flow's defaults for the others,
parameters saved under former names are mapped to their present ones, and parameters that all
integrations share are described once.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from inspect import cleandoc, signature
from typing import Any, ParamSpec, TypeVar

from prefect import Flow, runtime
from pydantic import BaseModel

from tasks.core.former_names import PARAMETERS, in_present_names

P = ParamSpec("P")
R = TypeVar("R")

_DESCRIPTIONS = {
    "application": "The block of your application's API.",
    "payload": "A sample to handle in place of what is waiting; the inbox is not touched.",
    "consumer": "How the run handles waiting deliveries.",
}
"""Run form texts for parameters that a flow's docstring does not describe."""


class IntegrationFlow(Flow[P, R]):
    """A flow whose nested settings are merged over its own defaults."""

    def validate_parameters(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """Complete and validate a run's parameters; see `prefect.Flow`."""
        given = super().validate_parameters(in_present_names(parameters, PARAMETERS))
        defaults = signature(self.fn).parameters
        return {name: _merged(defaults[name].default, value) for name, value in given.items()}


def flow(
    *, name: str, flow_run_name: Callable[[], str] | str | None = None
) -> Callable[[Callable[P, R]], IntegrationFlow[P, R]]:
    """Make a function a Prefect flow; see `prefect.flow`.

    Args:
        name: The flow's name in the Prefect UI.
        flow_run_name: Names each run; a template of parameters, or a function.
    """

    def decorate(function: Callable[P, R]) -> IntegrationFlow[P, R]:
        function.__doc__ = _described(function)
        return IntegrationFlow(function, name=name, flow_run_name=flow_run_name)

    return decorate


def run_name(*templates: str, time: str = "%H:%M:%S") -> Callable[[], str]:
    """Name runs by what they work on and since when, e.g. "warehouse 14:02:10".

    Args:
        templates: Of the flow's parameters, e.g. "{stream}"; of a block, its name is taken. The
            first counts that is not empty. By default the flow's name.
        time: How the scheduled start is written.
    """

    def name() -> str:
        run = runtime.flow_run
        values = {key: str(value or "").rpartition("/")[2] for key, value in run.parameters.items()}
        what = next(filter(None, (each.format_map(values) for each in templates)), run.flow_name)
        sample = "sample for " if run.parameters.get("payload") is not None else ""
        return f"{sample}{what} {run.scheduled_start_time or datetime.now(UTC):{time}}"

    return name


def _merged(default: Any, value: Any) -> Any:
    """Return the value, with missing fields taken from the default."""
    if not isinstance(default, BaseModel) or type(value) is not type(default):
        return value
    said = {
        field: _merged(getattr(default, field), getattr(value, field))
        for field in value.model_fields_set
    }
    return default.model_copy(update=said)


def _described(function: Callable[..., Any]) -> str:
    """Return the docstring, which Prefect shows in the run form, with the shared descriptions."""
    text = cleandoc(function.__doc__ or "")
    missing = [
        f"    {name}: {_DESCRIPTIONS[name]}"
        for name in signature(function).parameters
        if name in _DESCRIPTIONS and f"\n    {name}: " not in text
    ]
    if not missing:
        return text
    return "\n".join([text, *([] if "\nArgs:\n" in text else ["", "Args:"]), *missing])
