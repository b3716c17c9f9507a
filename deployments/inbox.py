"""Operate the inbox from the command line: list, show, count, replay, purge."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from deployments.state_commands import harmless, run_command
from tasks.core.former_names import STATUSES as FORMER_STATUSES
from tasks.core.intake.inbox.operations import (
    STATUSES,
    UNEVENTFUL,
    DeliveryFilter,
    DeliverySummary,
    InboxOperations,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return 0 on success, 1 on failure, 2 if it was not understood."""
    return run_command(_parser().parse_args(arguments), InboxOperations)


def _list(inbox: InboxOperations, options: argparse.Namespace) -> None:
    found = inbox.select(_selection(options))
    _print_table(found)
    _tell_limit(found, options, go_on="raise --limit")


def _counts(inbox: InboxOperations, _options: argparse.Namespace) -> None:
    for (integration, status), count in sorted(inbox.counts().items()):
        _say(f"{integration:30} {status:11} {count:8}")


def _show(inbox: InboxOperations, options: argparse.Namespace) -> None:
    delivery = inbox.read(options.id)
    _say(f"{delivery.event} received at {delivery.endpoint} {delivery.received_at.isoformat()}")
    for name, value in json.loads(delivery.raw_headers):
        _say(f"{name}: {value}")
    content = delivery.body if options.raw else delivery.payload
    if sys.stdout.isatty():
        print("\n" + harmless(content.decode(errors="replace"), also="\n\t"))
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(b"\n" + content + b"\n")


def _replay(inbox: InboxOperations, options: argparse.Namespace) -> None:
    selection = _selection(options, default_statuses=() if options.ids else ("dead_letter",))
    found = inbox.replay(selection, dry_run=not options.yes, new_effects=options.force_new_effects)
    _print_table(found)
    if options.yes:
        _say(f"{len(found)} deliveries replayed; the sweeper lets a run start within a minute")
    else:
        _say(f"{len(found)} deliveries would be replayed; add --yes to do it")
    _tell_limit(found, options, go_on="run it again" if options.yes else "raise --limit")


def _purge(inbox: InboxOperations, options: argparse.Namespace) -> None:
    count = inbox.purge(
        settled_before_at=datetime.now(UTC) - timedelta(days=options.older_than_days),
        statuses=(*UNEVENTFUL, "dead_letter") if options.include_dead_letters else UNEVENTFUL,
        dry_run=not options.yes,
    )
    _say(f"{count} deliveries deleted" if options.yes else f"{count} would go; add --yes")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deployments.inbox", description=__doc__)
    parser.add_argument("--database", help="its URL; by default INTEGRATIONS_DATABASE_URL")
    commands = parser.add_subparsers(required=True, metavar="command")

    listing = commands.add_parser("list", help="list deliveries")
    _add_selection(listing)
    listing.set_defaults(command=_list)

    commands.add_parser("counts", help="count deliveries by integration and status").set_defaults(
        command=_counts
    )

    show = commands.add_parser("show", help="print one delivery's headers and payload")
    show.add_argument("id")
    show.add_argument(
        "--raw",
        action="store_true",
        help="the whole body as received",
    )
    show.set_defaults(command=_show)

    replay = commands.add_parser(
        "replay", help="have deliveries handled again; dead-lettered by default"
    )
    _add_selection(replay)
    replay.add_argument("--yes", action="store_true", help="do it; without, it is a dry run")
    replay.add_argument(
        "--force-new-effects",
        action="store_true",
        help="repeat effects even where they were completed",
    )
    replay.set_defaults(command=_replay)

    purge = commands.add_parser("purge", help="delete what was finished long ago")
    purge.add_argument("--older-than-days", type=float, default=30)
    purge.add_argument(
        "--include-dead-letters",
        "--parked-too",  # former name
        action="store_true",
        help="dead-lettered ones as well",
    )
    purge.add_argument("--yes", action="store_true", help="do it; without, it only counts")
    purge.set_defaults(command=_purge)
    return parser


def _status(given: str) -> str:
    return FORMER_STATUSES.get(given, given)


def _add_selection(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ids", nargs="*", help="delivery ids")
    parser.add_argument("--integration")
    parser.add_argument("--endpoint")
    parser.add_argument("--status", action="append", choices=STATUSES, type=_status, default=[])
    parser.add_argument("--from", dest="from_at", type=_instant, metavar="INSTANT")
    parser.add_argument("--until", dest="until_at", type=_instant, metavar="INSTANT")
    parser.add_argument("--limit", type=int, default=1000)


def _selection(
    options: argparse.Namespace, *, default_statuses: tuple[str, ...] = ()
) -> DeliveryFilter:
    return DeliveryFilter(
        ids=tuple(options.ids),
        integration=options.integration,
        endpoint=options.endpoint,
        statuses=tuple(options.status) or default_statuses,
        received_from_at=options.from_at,
        received_until_at=options.until_at,
        limit=options.limit,
    )


def _instant(text: str) -> datetime:
    instant = datetime.fromisoformat(text)
    return instant.astimezone(UTC)  # without a zone: this machine's


def _print_table(deliveries: Sequence[DeliverySummary]) -> None:
    for each in deliveries:
        received = f"{each.received_at:%Y-%m-%d %H:%M:%S}Z"
        _say(
            f"{each.id}  {received}  {each.status:11} {each.attempts:3}  "
            f"{each.integration} {each.event}  {each.reason or ''}".rstrip()
        )


def _tell_limit(
    found: Sequence[DeliverySummary], options: argparse.Namespace, *, go_on: str
) -> None:
    if len(found) == options.limit:
        print(f"that is the limit of {options.limit}; for more, {go_on}", file=sys.stderr)


def _say(text: str) -> None:
    print(harmless(text))


if __name__ == "__main__":
    sys.exit(main())
