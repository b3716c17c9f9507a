"""Which order events are exported, and as which request each goes to the other system."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from tasks.deliveries import Scalar, all_hold
from tasks.exports import CompiledRequest, RequestTemplate, compile_request


class ExportRule(BaseModel):
    """One kind of event, and what is done about it.

    The templates see the event as own app sends it: `type`, `timestamp`, `data` with the order,
    and in `write_back` what was taken from the answer as `answer`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    when: dict[str, Scalar | list[Scalar]] = Field(
        description="Path in the event to the value it must have, or to a list of which it must "
        "be one, e.g. {data.status: [paid, packed]}; all must hold."
    )
    request: RequestTemplate = Field(description="What is sent to the other system.")
    write_back: RequestTemplate | None = Field(
        None, description="What the application is told of the answer, e.g. the other side's id."
    )


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of a deployment, made ready."""

    _rules: Sequence[tuple[ExportRule, CompiledRequest, CompiledRequest | None]]

    @classmethod
    def of(cls, rules: Sequence[ExportRule]) -> Rules:
        """Compile their templates."""
        return cls(
            [
                (
                    rule,
                    compile_request(rule.request),
                    compile_request(rule.write_back) if rule.write_back else None,
                )
                for rule in rules
            ]
        )

    def first_for(self, event: Any) -> tuple[CompiledRequest, CompiledRequest | None] | None:
        """Request and write-back of the first rule that the event meets, or None."""
        for rule, request, write_back in self._rules:
            if all_hold(rule.when, event):
                return request, write_back
        return None
