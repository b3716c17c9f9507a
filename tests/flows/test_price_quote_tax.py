"""What the third party says the tax is, and how long it may take to say it."""

from __future__ import annotations

from contextlib import contextmanager
from decimal import Decimal

import pytest

from blocks.errors import BadPayloadError
from blocks.http_api import HttpApi
from flows.price_quote.quotes import Priced, QuotedLine, QuoteRequest, make_quote
from flows.price_quote.tax import ask_for_tax
from sandbox.systems.scripted_api import ScriptedReply
from tasks.api import open_api, open_api_for_deliveries

WANTED = QuoteRequest.model_validate(
    {"country": "DE", "lines": [{"sku": "widgets", "quantity": 1}]}
)
PRICED = Priced(
    [
        QuotedLine(
            sku="widgets",
            quantity=1,
            unit_price=Decimal("65.00"),
            net=Decimal("65.00"),
            in_stock=5,
            is_available=True,
        )
    ],
    "EUR",
)


@pytest.fixture
def told(scripted_api):
    """What is made of an answer of the third party."""

    def ask(answer):
        scripted_api.answer(ScriptedReply(answer))
        with open_api(HttpApi(base_url=scripted_api.url, max_attempts=1)) as tax_api:
            return ask_for_tax(tax_api, WANTED, PRICED)

    return ask


@pytest.mark.parametrize(
    ("tax", "amount"),
    [
        ("12.35", "12.35"),
        (12.35, "12.35"),
        (12, "12.00"),
        (0, "0.00"),
        ("12.345", "12.35"),
        ("1e1", "10.00"),
    ],
)
def test_the_quote_says_cents(told, tax, amount):
    """However the amount is written, the quote and its total have it in cents."""
    quote = make_quote(WANTED, PRICED, told({"tax": tax}), "fail", {})
    assert f'"tax":{{"amount":"{amount}"'.encode() in quote.body
    assert f'"total":"{Decimal("65.00") + Decimal(amount)}"'.encode() in quote.body


@pytest.mark.parametrize(
    "answer",
    [
        *({"tax": each} for each in ("NaN", "Infinity", "-0.01", -1, "1e999", "x", "", None, True)),
        {"tax": []},
        {},
        [],
        None,
        b'{"tax": 1e999}',
    ],
    ids=repr,
)
def test_an_answer_without_an_amount_is_refused(told, answer):
    """It names the third party, and no quote says nonsense."""
    with pytest.raises(BadPayloadError, match="calculate tax"):
        told(answer)


async def test_the_timeout_bounds_connecting_too(monkeypatch):
    """Whoever does not even take the connection is waited for no longer than who is slow."""
    opened = []

    @contextmanager
    def noticed(api):
        opened.append(api)
        yield api

    async def loaded(_block, *_kinds):
        return block

    monkeypatch.setattr("tasks.api.open_api", noticed)
    monkeypatch.setattr("tasks.api.load_connection", loaded)
    fields = ("connect_timeout_s", "read_timeout_s", "total_timeout_s")

    async def timeouts():
        async with open_api_for_deliveries("http-api/tax", timeout_s=2.0):
            return [getattr(opened[-1], each) for each in fields]

    usual = block = HttpApi(base_url="https://tax.example")
    assert await timeouts() == [2.0, 2.0, 2.0]
    assert opened[-1].max_attempts == 1
    block = usual.model_copy(update={"connect_timeout_s": 0.5})
    assert await timeouts() == [0.5, 2.0, 2.0]
