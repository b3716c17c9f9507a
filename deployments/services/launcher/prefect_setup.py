"""Sets Prefect up in a fork as in a new process with the same environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from prefect.context import refresh_global_settings_context
from prefect.logging.configuration import setup_logging
from prefect.settings import (
    PREFECT_LOGGING_SETTINGS_PATH,
    PREFECT_PROFILES_PATH,
    get_current_settings,
)

# With the notifier, polls are only for runs scheduled ahead: often enough that the poll's 30 %
# jitter never misses the worker's prefetch (10 s).
_POLL_EVERY_S = 5
# Where Prefect looks for settings in the working directory.
_FILES = (".env", "prefect.toml", "pyproject.toml")
_ONE_AUTHORITY = Path(__file__).with_name("one_authority.pem")


def set_defaults() -> None:
    """Set the environment's defaults for fast starts."""
    settings = get_current_settings()
    if "query_seconds" not in settings.worker.model_fields_set:
        os.environ["PREFECT_WORKER_QUERY_SECONDS"] = str(_POLL_EVERY_S)
    plain = str(settings.api.url).startswith("http:")
    if plain and "ssl_cert_file" not in settings.api.model_fields_set:
        # Each of the ten API clients that Prefect creates for a run loads all 140 authorities
        # again, 10 to 25 ms each. A server without TLS needs none of them.
        os.environ["PREFECT_API_SSL_CERT_FILE"] = str(_ONE_AUTHORITY)
    refresh_global_settings_context()


class PrefectSetup:
    """Prefect's settings from this process's environment, to be refreshed in a fork."""

    def __init__(self) -> None:
        """Set up Prefect as the worker's runs need it, and record the sources of its settings."""
        set_defaults()
        # The worker passes all its settings to its runs as variables, whatever their source.
        settings = get_current_settings().to_environment_variables(exclude_unset=True)
        self._variables = _variables({**os.environ, **settings})
        self._profiles = _profiles_written_at_ns()
        self._logging = _logging_choices()

    def refresh(self) -> None:
        """Reload settings if they may differ, and set logging up again if needed.

        Reading settings takes 40 ms and 7 MB, and the logging configuration 50 ms: more than
        everything else in a fork.
        """
        files_here = any(Path(name).exists() for name in _FILES)
        has_others = self._variables != _variables(os.environ)
        if files_here or has_others or self._profiles != _profiles_written_at_ns():
            refresh_global_settings_context()
        has_own_file = PREFECT_LOGGING_SETTINGS_PATH.value().exists()
        if has_own_file or _logging_choices() != self._logging:
            setup_logging(incremental=False)


def _variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that affect Prefect's settings; PREFECT__… belong to the run."""
    return {
        name: value
        for name, value in environment.items()
        if name == "HOME"
        or (name.upper().startswith("PREFECT_") and not name.startswith("PREFECT__"))
    }


def _profiles_written_at_ns() -> int | None:
    path = PREFECT_PROFILES_PATH.value()
    return path.stat().st_mtime_ns if path.exists() else None


def _logging_choices() -> list[object]:
    settings = get_current_settings()
    variables = {name: value for name, value in os.environ.items() if "LOGGING" in name}
    return [settings.logging, settings.internal, settings.server.logging_level, variables]
