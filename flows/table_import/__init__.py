"""Scheduled import of the rows of other systems' tables: those that wait, or those that changed."""
