"""Drains an inbox into own app in processes that each kill themselves at a given step.

    python draining_process.py DATABASE_URL OWN_APP_URL API_KEY STEP …

Steps are counted through claims, effects and settlements, before and after each; step 0 never
comes. Run as a process of its own, since it forks. Prints how each process ended.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from itertools import count

import httpx

from tasks.plain.inbox.draining import Drain, DrainSettings
from tasks.plain.inbox.drains import Drains
from tasks.plain.inbox.settlement import Settlement
from tasks.plain.inbox.store import Inbox
from tasks.plain.state.database import open_database

LEASE_S = 0.5
steps = count(1)


class Killed:
    """When this process kills itself."""

    at = 0


def step() -> None:
    """Die here if it is time."""
    if next(steps) == Killed.at:
        os.kill(os.getpid(), signal.SIGKILL)


class KilledInbox(Inbox):
    """Dies before or after a transaction."""

    def claim(self, *arguments, **options):
        step()
        claimed = super().claim(*arguments, **options)
        step()
        return claimed

    def settle(self, settlements):
        step()
        super().settle(settlements)
        step()


async def drain() -> None:
    url, own_app, api_key = sys.argv[1:4]
    engine = open_database(url)
    inbox = KilledInbox(engine)
    async with httpx.AsyncClient(base_url=own_app, headers={"X-API-Key": api_key}) as http:

        async def handle(delivery):
            step()
            response = await http.post(
                "/api/v1/inventory/widgets/adjustments",
                json={"action": "add", "quantity": 1},
                headers={"Idempotency-Key": delivery.idempotency_key},
            )
            response.raise_for_status()
            step()
            return Settlement(delivery, "done")

        async def ring(_integration):
            pass

        await Drain(
            inbox,
            Drains(engine),
            integration="orders",
            run_id=f"process {os.getpid()}",
            handle=handle,
            # poison that kills is not what is tested here: innocent ones must not be parked
            settings=DrainSettings(
                concurrency=4, linger_s=1.0, lease_s=LEASE_S, max_attempts=1000, max_drains=10
            ),
            ring=ring,
            log=logging.getLogger("drain"),
        ).run()
    inbox.close()


def main() -> None:
    for number in sys.argv[4:]:
        child = os.fork()
        if child == 0:
            Killed.at = int(number)
            asyncio.run(drain())
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        # until then a dead drain counts as at work, and the next may leave the waiting to it
        time.sleep(1.5 * LEASE_S)


if __name__ == "__main__":
    main()
