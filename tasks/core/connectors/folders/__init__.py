"""Folders on other machines and services behind one small protocol."""
