"""Asks the third party for the tax, and takes that it is late for an answer."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

from blocks.errors import BadPayloadError, TransientError
from flows.price_quote.quotes import Priced, QuoteRequest
from tasks.plain.http.client import ApiClient


def ask_for_tax(
    tax_api: ApiClient, wanted: QuoteRequest, priced: Priced
) -> Decimal | TransientError:
    """The tax on all lines, or why the third party did not tell it in time.

    Raises:
        PermanentError: It refuses, which waiting does not mend.
    """
    try:
        answer = tax_api.call(
            "POST",
            "calculations",
            json={
                "country": wanted.country,
                "currency": priced.currency,
                "lines": [{"sku": line.sku, "net": line.net} for line in priced.lines],
            },
            repeatable=True,
            operation="calculate tax",
        ).json()
    except TransientError as late:
        return late
    try:
        return Decimal(answer["tax"])
    except (TypeError, KeyError, InvalidOperation) as exc:
        raise BadPayloadError(
            "its answer has no amount under tax", system=tax_api.system, operation="calculate tax"
        ) from exc
