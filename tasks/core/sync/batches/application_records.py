"""What the application takes: one model a record type, in its own words.

Files, tables and queues are imported as these; put your application's in their place.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

Key = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100)]
Money = Annotated[Decimal, Field(ge=0, max_digits=14, decimal_places=4)]
Currency = Annotated[str, StringConstraints(strip_whitespace=True, pattern="^[A-Z]{3}$")]


class InventoryItem(BaseModel):
    """How much of an item lies in a warehouse."""

    sku: Key
    name: str = Field(min_length=1)
    quantity: int = Field(ge=0)
    warehouse: str | None = None
    unit_price: Money | None = None
    currency: Currency | None = None


class Product(BaseModel):
    """An item of the catalogue."""

    sku: Key
    name: str = Field(min_length=1)
    description: str | None = None
    price: Money
    currency: Currency
    active: bool = True


class OrderLine(BaseModel):
    """How much of an item was ordered, at which price."""

    sku: Key
    quantity: int = Field(gt=0)
    unit_price: Money


class Order(BaseModel):
    """What a customer ordered."""

    order_no: Key
    customer: str = Field(min_length=1)
    ordered_at: datetime
    status: str = "new"
    total: Money
    currency: Currency
    lines: list[OrderLine] = []

    @field_validator("ordered_at")
    @classmethod
    def _with_zone(cls, value: datetime) -> datetime:
        if value.tzinfo is None:
            raise ValueError("the time needs its zone, e.g. 2026-03-01T09:30:00+01:00")
        return value


class Contact(BaseModel):
    """A person at a customer or supplier."""

    model_config = ConfigDict(str_strip_whitespace=True)

    contact_id: Key
    name: str = Field(min_length=1)
    email: str = Field(pattern=r"^[^@\s]+@[^@\s]+\.[^@\s]+$")
    phone: str | None = None
    company: str | None = None
    updated_at: datetime | None = None


RecordType = Literal["inventory", "products", "orders", "contacts"]
MODELS: dict[str, type[BaseModel]] = {
    "inventory": InventoryItem,
    "products": Product,
    "orders": Order,
    "contacts": Contact,
}
