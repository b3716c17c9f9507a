"""Reusable Prefect tasks, one module per system."""
