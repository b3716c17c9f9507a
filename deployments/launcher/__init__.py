"""Starts flow runs in under a second: a preloaded parent that forks a child for each."""
