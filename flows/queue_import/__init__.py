"""Scheduled import of the records or files that wait in a queue."""
