"""The base model for all parts of a declaration."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Declaration(BaseModel):
    """Base of all parts of a declaration; unknown fields are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)
