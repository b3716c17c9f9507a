"""Runs every integration against the sandbox on one machine, to watch and try out."""
