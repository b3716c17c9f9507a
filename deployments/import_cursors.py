"""See and set the cursors of data imports from the command line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from deployments.state_commands import run_command
from tasks.core.sync.api_import.cursors import Cursors


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return 0 on success, 1 on failure, 2 if it was not understood."""
    return run_command(_parser().parse_args(arguments), Cursors)


def _show(cursors: Cursors, _options: argparse.Namespace) -> None:
    for each in cursors.streams():
        windows = ", ".join(name or "what is new" for name in each.open_windows)
        told = [each.value or "no cursor yet", f"{each.rejected} rejects"]
        if windows:
            told.append(f"under way: {windows}, {each.pages} pages read")
        if each.owner:
            told.append(f"run {each.owner} is at it")
        print(f"{each.stream:30} {'; '.join(told)}")


def _set(cursors: Cursors, options: argparse.Namespace) -> None:
    cursor = None if options.reset else options.cursor
    before = cursors.set(options.stream, cursor, dry_run=not options.yes)
    print(f"{options.stream}: {before or 'none'} → {cursor or 'none'}")
    if not options.yes:
        print("nothing was changed; add --yes to do it")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m deployments.import_cursors", description=__doc__
    )
    parser.add_argument("--database", help="its URL; by default INTEGRATIONS_DATABASE_URL")
    commands = parser.add_subparsers(required=True, metavar="command")
    commands.add_parser("show", help="every stream and its cursor").set_defaults(command=_show)
    setting = commands.add_parser("set", help="set a cursor")
    setting.add_argument("stream")
    where = setting.add_mutually_exclusive_group(required=True)
    where.add_argument("--cursor", help="in the form of the present one")
    where.add_argument("--reset", action="store_true", help="begin anew")
    setting.add_argument("--yes", action="store_true", help="do it; without, it is a dry run")
    setting.set_defaults(command=_set)
    return parser


if __name__ == "__main__":
    sys.exit(main())
