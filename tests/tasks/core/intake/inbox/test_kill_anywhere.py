"""A run killed at any step repeats no effect and leaves none out."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).with_name("consumer_process.py")
# the first claim, amid the first effects, amid settlements, late
KILLED_AT = (1, 2, 3, 5, 9, 14, 22, 41)
DELIVERIES = 40


def test_kill_anywhere(setup, new, own_app):
    """However often runs are killed, every delivery has exactly one effect in the end."""
    own_app.http.put(
        "/api/v1/inventory/widgets", json={"sku": "widgets", "name": "W", "quantity": 0}
    ).raise_for_status()
    own_app.forget_requests()
    asyncio.run(setup.store(*(new(str(i)) for i in range(DELIVERIES))))
    url = setup.engine.url.render_as_string(hide_password=False)

    command = [sys.executable, str(PROGRAM), url, own_app.base_url, own_app.api_key]
    steps = [*KILLED_AT, 0]  # the last one lives
    ended = subprocess.run(
        [*command, *map(str, steps)], check=True, timeout=120, capture_output=True, text=True
    )
    assert ended.stdout.split() == ["killed"] * len(KILLED_AT) + ["ended"]
    assert set(setup.statuses().values()) == {"done"}
    requests = own_app.requests()["requests"]
    effects = [each["idempotency_key"] for each in requests if not each["replayed"]]
    assert len(effects) == len(set(effects)) == DELIVERIES
    [widgets] = own_app.records("inventory")
    assert widgets["quantity"] == DELIVERIES
