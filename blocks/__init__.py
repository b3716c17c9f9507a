"""Typed connections to outside systems: who, where, with which limits."""
