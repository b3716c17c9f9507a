"""Fills `${NAME}` in declarations from the environment."""

from __future__ import annotations

import re
from collections.abc import Mapping

from blocks.errors import MisconfiguredError

VARIABLE = re.compile(r"\$\{([A-Z][A-Z0-9_]*)\}")
"""Finds variables; the group is the name."""


def fill_in(
    text: str, environment: Mapping[str, str], *, more_letters: str = "", operation: str
) -> str:
    """Return the text with the variables' values filled in.

    Args:
        text: E.g. "/webhooks/${TOKEN}".
        environment: Where they are looked up.
        more_letters: Characters allowed in values besides letters, digits, . _ ~ and -.
        operation: Name of this operation in errors.

    Raises:
        MisconfiguredError: A variable is not set, or its value has other characters.
    """
    allowed = re.compile(rf"[A-Za-z0-9._~{re.escape(more_letters)}-]+", re.ASCII)

    def value(found: re.Match[str]) -> str:
        given = environment.get(found[1], "")
        if not allowed.fullmatch(given):
            also = f" {' '.join(more_letters)}" if more_letters else ""
            raise MisconfiguredError(
                f"set {found[1]} to letters, digits, . _ ~ and -{also}",
                system="declarations",
                operation=operation,
            )
        return given

    return VARIABLE.sub(value, text)
