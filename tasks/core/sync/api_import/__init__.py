"""Imports what changed in another system's API, page by page, and loses and doubles nothing."""
