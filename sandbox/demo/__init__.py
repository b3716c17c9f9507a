"""Runs every integration against the sandbox on one machine, to look at and to try."""
