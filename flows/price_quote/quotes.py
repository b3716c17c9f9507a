"""What a quote is asked with and what it says, with a policy for when the tax is late."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Annotated, Literal

from pydantic import BaseModel, Field, StringConstraints

from blocks.errors import TransientError, UpstreamRejectedError
from tasks.api import ApiClient, path_segment
from tasks.request_reply import Reply

TaxPolicy = Literal["leave out", "estimate", "fail"]
_CENT = Decimal("0.01")
_RETRY_AFTER_S = 10


class WantedLine(BaseModel):
    """One article."""

    sku: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    quantity: int = Field(gt=0, le=1_000_000, strict=True)


class QuoteRequest(BaseModel):
    """What a caller asks."""

    country: Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$")]
    lines: list[WantedLine] = Field(min_length=1, max_length=50)


class QuotedLine(BaseModel):
    """One article with its price and stock."""

    sku: str
    quantity: int
    unit_price: Decimal
    net: Decimal
    in_stock: int
    is_available: bool


class Tax(BaseModel):
    """The tax on a quote."""

    amount: Decimal
    is_estimate: bool = False


class Quote(BaseModel):
    """The answer; `missing` names what could not be had in time."""

    country: str
    currency: str
    lines: list[QuotedLine]
    net: Decimal
    tax: Tax | None
    total: Decimal | None
    is_complete: bool
    missing: list[str]


@dataclass(frozen=True, slots=True)
class Priced:
    """The lines of a quote before tax.

    Attributes:
        lines: As they were asked for.
        currency: Of all of them, as ISO 4217 has it.
    """

    lines: Sequence[QuotedLine]
    currency: str

    @property
    def net(self) -> Decimal:
        """The sum before tax."""
        return sum((line.net for line in self.lines), Decimal(0))


def priced_lines(own_app: ApiClient, wanted: QuoteRequest) -> Priced | Reply:
    """Look up price and stock of each article in the application.

    Returns:
        The lines, or the answer to a caller that asks for what there is not.

    Raises:
        IntegrationError: The application does not answer.
    """
    lines: list[QuotedLine] = []
    currencies: set[str] = set()
    for line in wanted.lines:
        product = _look_up(own_app, "products", line.sku)
        if product is None or not product["active"]:
            return Reply.problem(422, f"there is no article {line.sku!r} for sale", sku=line.sku)
        stock = _look_up(own_app, "inventory", line.sku)
        in_stock = 0 if stock is None else int(stock["quantity"])
        price = Decimal(product["price"])
        currencies.add(product["currency"])
        lines.append(
            QuotedLine(
                sku=line.sku,
                quantity=line.quantity,
                unit_price=price,
                net=rounded(price * line.quantity),
                in_stock=in_stock,
                is_available=in_stock >= line.quantity,
            )
        )
    if len(currencies) > 1:
        return Reply.problem(422, "the articles have prices in several currencies: ask for each")
    return Priced(lines, currencies.pop())


def make_quote(
    wanted: QuoteRequest,
    priced: Priced,
    tax: Decimal | TransientError,
    policy: TaxPolicy,
    estimated_rates: Mapping[str, Decimal],
) -> Reply:
    """Put the answer together.

    Args:
        wanted: What was asked.
        priced: The lines.
        tax: The tax, or why it could not be had in time.
        policy: What to do in that case.
        estimated_rates: Country to rate.
    """
    if not isinstance(tax, TransientError):
        return _answer(wanted, priced, Tax(amount=tax))
    rate = estimated_rates.get(wanted.country)
    if policy == "estimate" and rate is not None:
        return _answer(wanted, priced, Tax(amount=rounded(priced.net * rate), is_estimate=True))
    if policy == "fail":
        return Reply.problem(
            504,
            "the tax could not be had in time; try again later",
            headers=[("Retry-After", str(_RETRY_AFTER_S))],
        )
    return _answer(wanted, priced, None)


def rounded(amount: Decimal) -> Decimal:
    """An amount of money in cents, halves away from zero."""
    return amount.quantize(_CENT, rounding=ROUND_HALF_UP)


def _answer(wanted: QuoteRequest, priced: Priced, tax: Tax | None) -> Reply:
    is_complete = tax is not None and not tax.is_estimate
    quote = Quote(
        country=wanted.country,
        currency=priced.currency,
        lines=list(priced.lines),
        net=priced.net,
        tax=tax,
        total=None if tax is None else priced.net + tax.amount,
        is_complete=is_complete,
        missing=[] if is_complete else ["tax"],
    )
    return Reply.json(quote)


def _look_up(own_app: ApiClient, resource: str, sku: str) -> dict[str, str] | None:
    try:
        found: dict[str, str] = own_app.call(
            "GET", f"{resource}/{path_segment(sku)}", operation=f"look up {resource}", record=sku
        ).json()
    except UpstreamRejectedError as error:
        if error.status == 404:
            return None
        raise
    return found
