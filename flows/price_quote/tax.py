"""Asks the third party for the tax, and takes that it is late for an answer."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any

from blocks.errors import BadPayloadError, TransientError
from flows.price_quote.quotes import Priced, QuoteRequest, rounded
from tasks.api import ApiClient


def ask_for_tax(
    tax_api: ApiClient, request: QuoteRequest, priced: Priced
) -> Decimal | TransientError:
    """The tax on all lines in cents, or why the third party did not tell it in time.

    Raises:
        PermanentError: It refuses or answers nonsense, which waiting does not mend.
    """
    try:
        answer = tax_api.call(
            "POST",
            "calculations",
            json={
                "country": request.country,
                "currency": priced.currency,
                "lines": [{"sku": line.sku, "net": line.net} for line in priced.lines],
            },
            repeatable=True,
            operation="calculate tax",
        ).json()
    except TransientError as late:
        return late
    amount = _amount(answer)
    if amount is None:
        raise BadPayloadError(
            "its answer has no amount under tax", system=tax_api.system, operation="calculate tax"
        )
    return amount


def _amount(answer: Any) -> Decimal | None:
    found = answer.get("tax") if isinstance(answer, dict) else None
    if isinstance(found, bool) or not isinstance(found, str | int | float):
        return None
    try:
        amount = Decimal(str(found))  # a JSON number as it was written, not as a float has it
        return rounded(amount) if amount.is_finite() and amount >= 0 else None
    except InvalidOperation:
        return None
