"""Registers an integration's endpoints at third parties, and records what it registered."""
