"""Reusable Prefect tasks, one module a system."""
