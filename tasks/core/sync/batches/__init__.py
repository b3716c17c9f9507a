"""Batches of records on their way to an application."""
