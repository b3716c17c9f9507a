"""The `flow` decorator of integrations: Prefect's own, with parameters completed before a run.

A deployment that sets one field of a nested setting keeps the flow's own defaults for the others,
and parameters that were saved under former names are taken under their present ones.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import Any, ParamSpec, TypeVar

from prefect import Flow
from pydantic import BaseModel

from tasks.core.former_names import PARAMETERS, in_present_names

P = ParamSpec("P")
R = TypeVar("R")


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
        name: The flow's, in the Prefect UI.
        flow_run_name: Names each run; a template of parameters, or a function.
    """

    def decorate(function: Callable[P, R]) -> IntegrationFlow[P, R]:
        return IntegrationFlow(function, name=name, flow_run_name=flow_run_name)

    return decorate


def _merged(default: Any, value: Any) -> Any:
    """The value, with what was not said of it taken from the default."""
    if not isinstance(default, BaseModel) or type(value) is not type(default):
        return value
    said = {
        name: _merged(getattr(default, name), getattr(value, name))
        for name in value.model_fields_set
    }
    return default.model_copy(update=said)
