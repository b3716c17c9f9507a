"""Runs Prefect's server on SQLite; see `deployments.services.prefect_on_sqlite`."""

from __future__ import annotations

from deployments.services.prefect_on_sqlite import main

if __name__ == "__main__":
    main()
