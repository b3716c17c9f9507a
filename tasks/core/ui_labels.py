"""How the fields of settings are called in forms."""

from __future__ import annotations


def ui_label(name: str, _info: object = None) -> str:
    """A field's title; a name that ends with its unit has it in brackets, e.g. "Linger (s)"."""
    words = name.removesuffix("_s").replace("_", " ").capitalize()
    return f"{words} (s)" if name.endswith("_s") else words
