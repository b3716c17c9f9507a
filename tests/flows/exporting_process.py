"""Handles events of own app in processes that each kill themselves at a given step.

    python exporting_process.py KIND SETTINGS < [{"payload": …, "step": …}, …]

KIND is the integration, SETTINGS a JSON object with the state database and how to reach both
sides. Steps are counted before and after each call of an API and each change of the identity map;
step 0 never comes. Each payload is handled by a process that dies at its step, and then by one
that lives. Run as a process of its own, since it forks. Prints which of the dying ones
came to their end, as a list of JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

sys.path.append(str(Path(__file__).parents[1]))
from killed import KillSwitch, in_child

from blocks.errors import TransientError
from blocks.http_api import HttpApi
from flows.order_events_export.exporting import OrderExport
from flows.order_events_export.rules import ExportRule, Rules
from flows.support_tickets.exporting import TicketExport
from flows.support_tickets.importing import TicketSink
from flows.support_tickets.tickets import KIND
from flows.ticket_escalation.escalating import Escalation
from flows.ticket_escalation.issues import Repository
from tasks.core.connectors.http.client import ApiClient
from tasks.core.intake.inbox.delivery import Delivery
from tasks.core.state.database import open_database
from tasks.core.sync.two_way.identity_map.pairs import IdentityMap, LeasedPair
from tasks.exports import published_events

LEASE_S = 0.3
ATTEMPTS = 50
switch = KillSwitch()


switch.around(ApiClient, "call")
switch.around(LeasedPair, "store")


def api(document: dict[str, Any]) -> ApiClient:
    block = HttpApi(**document)
    return ApiClient(block.get_client(), system=block.system)


def handler(kind: str, settings: dict[str, Any]) -> Callable[[str, Any], object]:
    application, other = api(settings["application"]), api(settings["other"])
    published = published_events(application)
    identities = IdentityMap(open_database(settings["database"]), KIND, lease_s=LEASE_S)
    if kind == "helpdesk_import":
        sink = TicketSink(identities, application)
        return lambda id_, payload: sink.send(orjson.dumps([payload]), count=1, idempotency_key=id_)
    export: OrderExport | Escalation | TicketExport
    match kind:
        case "order_events_export":
            rules = Rules.of([ExportRule(**rule) for rule in settings["rules"]])
            export = OrderExport(published, rules, application, other)
        case "ticket_escalation":
            repository = Repository(other, settings["repository"], "from-support")
            export = Escalation(published, application, repository, "bug")
        case _:
            export = TicketExport(published, application, other, identities)
    return lambda id_, payload: export.handle(
        Delivery.sample(payload, event=payload["type"], integration=kind, id=id_)
    )


def handle(kind: str, settings: dict[str, Any], id_: str, payload: Any) -> None:
    handle_once = handler(kind, settings)
    for _ in range(ATTEMPTS):
        try:
            print(handle_once(id_, payload), file=sys.stderr)
        except TransientError as error:
            print(error, file=sys.stderr)
            time.sleep(LEASE_S / 5)  # as the inbox does: somebody dead may hold the pair yet
        else:
            return
    raise SystemExit("it does not succeed")


def in_a_process(at: int, *arguments: Any) -> bool:
    """Whether it came to its end in a process that dies at this step."""

    def work() -> None:
        switch.at = at
        handle(*arguments)

    return in_child(work)


def main() -> None:
    kind, settings = sys.argv[1], json.loads(sys.argv[2])
    ended = []
    for number, case in enumerate(json.load(sys.stdin)):
        arguments = (kind, settings, f"delivery-{number}", case["payload"])
        ended.append(in_a_process(case["step"], *arguments))
        assert in_a_process(0, *arguments)
    print(json.dumps(ended))


if __name__ == "__main__":
    main()
