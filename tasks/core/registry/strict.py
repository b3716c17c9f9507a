"""The model that all parts of a declaration derive from."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Declaration(BaseModel):
    """What all parts of a declaration have in common: a misspelt field is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)
