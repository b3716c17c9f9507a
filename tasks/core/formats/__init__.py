"""Formats of files: reading records, writing reports."""
