"""Picks up files, imports their records once, and puts the files away."""
