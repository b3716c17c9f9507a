"""Gives a fork the Prefect that a new process with its environment would have."""

from __future__ import annotations

import os

from prefect.context import refresh_global_settings_context
from prefect.logging.configuration import setup_logging
from prefect.settings import PREFECT_LOGGING_SETTINGS_PATH, get_current_settings


class PrefectSetup:
    """What Prefect has read from the environment of this process, to be made right in a fork."""

    def __init__(self) -> None:
        """Remember how logging is set up here."""
        self._logging = _logging_choices()

    def refresh(self) -> None:
        """Read settings anew, and set logging up anew if it is to be another.

        Reading the logging configuration takes 50 ms, more than all else in a fork.
        """
        refresh_global_settings_context()
        has_own_file = PREFECT_LOGGING_SETTINGS_PATH.value().exists()
        if has_own_file or _logging_choices() != self._logging:
            setup_logging(incremental=False)


def _logging_choices() -> list[object]:
    settings = get_current_settings()
    variables = {name: value for name, value in os.environ.items() if "LOGGING" in name}
    return [settings.logging, settings.internal, settings.server.logging_level, variables]
