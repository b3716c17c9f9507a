"""Consumes an inbox into own app in processes that each kill themselves at a given step.

    python consumer_process.py DATABASE_URL OWN_APP_URL API_KEY STEP …

Steps are counted through claims, effects and settlements, before and after each; step 0 never
comes. Run as a process of its own, since it forks. Prints how each process ended.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from pathlib import Path

import httpx

sys.path.append(str(Path(__file__).parents[4]))
from killed import KillSwitch, in_child

from tasks.core.intake.inbox.consumer import ConsumerSettings, InboxConsumer
from tasks.core.intake.inbox.consumer_registry import ConsumerRegistry
from tasks.core.intake.inbox.settlement import Settlement
from tasks.core.intake.inbox.store import Inbox
from tasks.core.state.database import open_database

LEASE_S = 0.5


async def consume(kill_at: int) -> None:
    switch = KillSwitch(kill_at)
    url, own_app, api_key = sys.argv[1:4]
    engine = open_database(url)
    inbox = Inbox(engine)
    for name in ("lease", "settle"):
        switch.around(inbox, name)
    async with httpx.AsyncClient(base_url=own_app, headers={"X-API-Key": api_key}) as http:

        async def handle(delivery):
            switch.step()
            response = await http.post(
                "/api/v1/inventory/widgets/adjustments",
                json={"action": "add", "quantity": 1},
                headers={"Idempotency-Key": delivery.idempotency_key},
            )
            response.raise_for_status()
            switch.step()
            return Settlement(delivery, "done")

        async def notify(_integration):
            pass

        await InboxConsumer(
            inbox,
            ConsumerRegistry(engine),
            integration="orders",
            run_id=f"process {os.getpid()}",
            handle=handle,
            # poison that kills is not what is tested here: innocent ones must not be dead-lettered
            settings=ConsumerSettings(
                concurrency=4, idle_timeout_s=1.0, lease_s=LEASE_S, max_attempts=1000, max_runs=10
            ),
            notify=notify,
            log=logging.getLogger("consumer"),
        ).run()
    inbox.close()


def main() -> None:
    for number in sys.argv[4:]:
        ended = in_child(lambda: asyncio.run(consume(int(number))))  # noqa: B023
        print("ended" if ended else "killed")
        # until then a dead run counts as at work, and the next may leave the waiting to it
        time.sleep(1.5 * LEASE_S)


if __name__ == "__main__":
    main()
