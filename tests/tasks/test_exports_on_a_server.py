"""The task for declared requests as it runs under a real Prefect server."""

from __future__ import annotations

import asyncio

import pytest
from prefect import flow

from blocks.errors import UpstreamRejectedError
from sandbox.systems import fulfilment_api
from tasks.core.connectors.http.templated_request import RequestTemplate
from tasks.exports import send_request

# Prefect's own clients leave sockets to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

SHIP = RequestTemplate(
    method="PUT",
    path="shipments/${order_no}",
    body={
        "recipient": "Ann", "value": "3.00", "currency": "EUR",
        "parcels": [{"sku": "${sku}", "pieces": 1}],
    },
    response={"shipment": "id"},
)  # fmt: skip


def test_declared_request_is_retried_by_class(prefect_server):
    """Told to retry, the task repeats what may pass under one key, and no refusal."""
    with fulfilment_api.start() as fulfilment:
        api = fulfilment.block(max_attempts=1)

        @flow
        async def ships():
            send = send_request.with_options(retries=3, retry_delay_seconds=0)
            keyed = {"idempotency_key": "k", "record": "SO-1"}
            sent = await send(api, SHIP, {"order_no": "SO-1", "sku": "A"}, **keyed)
            battery = {"order_no": "SO-1", "sku": "lithium-battery"}
            refused = await send(
                api, SHIP, battery, idempotency_key="l", record="SO-1", return_state=True
            )
            return sent, await refused.aresult(raise_on_failure=False)

        fulfilment.faults.lose_answer, fulfilment.faults.remaining = "done", 2
        sent, refusal = asyncio.run(ships())
        assert sent == {"shipment": "F-100001"}
        assert isinstance(refusal, UpstreamRejectedError)
        assert "lithium-battery cannot be sent" in refusal.explained
        assert len(fulfilment.effects) == 1
        assert fulfilment.attempts == 4
