"""Imports, exports and two-way sync of records."""
