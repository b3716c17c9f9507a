"""A shop that asks for price quotes: it waits for some, and has one sent back to it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from pydantic import SecretStr

from blocks.callback_signature import CallbackSignature
from blocks.http_api import ApiKeyAuth, HttpApi
from sandbox.scenarios import Sandbox
from sandbox.send_sample import read_sample
from sandbox.systems import tax_api
from sandbox.systems.callback_receiver import CallbackReceiver

_SECRET = "whsec_c2FuZGJveC1jYWxsYmFja3Mtc2VjcmV0"  # noqa: S105 - a stand-in's
_EVERY_S = 60
_TIMEOUT_S = 30
_PRICES = {"widgets": "12.50", "gadgets": "3.20"}


@contextmanager
def run(sandbox: Sandbox) -> Iterator[None]:
    """Ask for three quotes every minute, the last of them with a callback."""
    with tax_api.start() as tax, CallbackReceiver(_SECRET, on_result=_tell) as receiver:
        sandbox.blocks["http-api/tax"] = tax.block()
        sandbox.blocks["callback-signature/quotes"] = CallbackSignature(
            secrets=[SecretStr(_SECRET)]
        )
        _offer_articles(sandbox)

        def ask_for_quotes() -> None:
            sample = read_sample("quote")
            headers = {"X-API-Key": os.environ["QUOTES_API_KEY"]}
            hang_up = {"Prefer": "respond-async", "X-Callback-Url": f"{receiver.url}/quotes"}
            with httpx.Client(base_url=str(sandbox.gateway), timeout=_TIMEOUT_S) as gateway:
                for more in ({}, {}, hang_up):
                    answer = gateway.post(
                        "/quotes",
                        content=sample.body,
                        headers={**headers, **more, "Content-Type": "application/json"},
                    )
                    took_s = answer.elapsed.total_seconds()
                    said = "called back" if more else "waited"
                    print(f"a shop {said} for a quote: {answer.status_code} in {took_s:.2f} s")

        if sandbox.gateway is not None:
            sandbox.every(_EVERY_S, ask_for_quotes)
        yield


def _tell(result: dict[str, Any]) -> None:
    print("a shop was called back:", result["data"].get("status"), flush=True)


def _offer_articles(sandbox: Sandbox) -> None:
    block = sandbox.blocks["http-api/own-app"]
    assert isinstance(block, HttpApi)  # noqa: S101 - the sandbox's own
    assert isinstance(block.auth, ApiKeyAuth)  # noqa: S101
    key = block.auth.key.get_secret_value()
    with httpx.Client(base_url=sandbox.own_app, headers={"X-API-Key": key}) as own_app:
        for sku, price in _PRICES.items():
            product = {"sku": sku, "name": sku.title(), "price": price, "currency": "EUR"}
            own_app.put(f"/api/v1/products/{sku}", json={**product, "active": True})
