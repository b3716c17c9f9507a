"""Operate the inbox from the Prefect UI: replay, purge, show dead letters, notify again."""
