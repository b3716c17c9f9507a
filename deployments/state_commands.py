"""Runs the commands that operate on the state database, and says which database that is."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from typing import Any

from sqlalchemy import Engine

from blocks.errors import IntegrationError
from deployments.running_demo import use_running_demo
from tasks.core.state.database import URL_VARIABLE, database_url, open_database


def run_command(options: argparse.Namespace, operate: Callable[[Engine], Any]) -> int:
    """Run one command; return 0 on success, 1 on failure.

    Args:
        options: With `database`, its URL or None, and `command`, which is called with the
            result of `operate` and the options.
        operate: Builds the object that the commands work with.
    """
    try:
        if options.database is None:
            use_running_demo(URL_VARIABLE)
            tell_default_database()
        engine = open_database(options.database)
        try:
            options.command(operate(engine), options)
        finally:
            engine.dispose()
    except IntegrationError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def tell_default_database() -> None:
    """Say on stderr which state database is used by default, if none is configured."""
    if not os.environ.get(URL_VARIABLE):
        print(
            f"state database: {database_url()}, as {URL_VARIABLE} is not set",
            file=sys.stderr,
            flush=True,
        )


def harmless(text: str, *, also: str = "") -> str:
    """What a sender wrote, so that it does not steer the terminal."""
    return "".join(char if char.isprintable() or char in also else "?" for char in text)
