"""Operate the inbox from the Prefect UI: replay, purge, show what is dead-lettered, ring again."""
