"""Remembers which record of one system is which record of another."""
