"""The same with the libraries that integrations import."""

from __future__ import annotations

import boto3  # noqa: F401
import lxml.etree  # noqa: F401
import pandas as pd  # noqa: F401
import paramiko  # noqa: F401
from prefect import flow

from benchmarks.start_latency import measured_flows


@flow
async def nothing() -> None:
    """End at once."""


@flow
async def wait(seconds: float = 600) -> None:
    """Idle, as a run does that waits for a slow partner."""
    await measured_flows.wait.fn(seconds)
