"""Runs the commands that operate on the state database."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

from sqlalchemy import Engine

from blocks.errors import IntegrationError
from tasks.plain.state.database import open_database


def run_command(options: argparse.Namespace, operate: Callable[[Engine], Any]) -> int:
    """Run one command; 0 if it did what was asked, 1 if not.

    Args:
        options: With `database`, its URL or None, and `command`, which is called with what
            `operate` makes and the options.
        operate: Makes what the commands work with.
    """
    try:
        engine = open_database(options.database)
        try:
            options.command(operate(engine), options)
        finally:
            engine.dispose()
    except IntegrationError as error:
        print(error, file=sys.stderr)
        return 1
    return 0
