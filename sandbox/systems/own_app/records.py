"""What the application stores: six resources, each with its fields and business key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    NonNegativeInt,
    PositiveInt,
    StringConstraints,
)

MAX_BATCH_RECORDS = 10_000

Key = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Text = Annotated[str, StringConstraints(max_length=10_000)]
Money = Annotated[str, StringConstraints(pattern=r"^-?[0-9]{1,15}(\.[0-9]{1,6})?$")]
Currency = Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]
Email = Annotated[str, StringConstraints(pattern=r"^[^@\s]+@[^@\s]+$", max_length=320)]
# where else a record is known, and under which id: {"fulfilment": "F-17"}
ExternalIds = dict[Key, Key]


class ApiModel(BaseModel):
    """Takes JSON types as they are ("5" is no number) and no unknown field."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class StoredRecord(ApiModel):
    """A record; `changed_at` and `version` are the application's: ignored when sent back."""

    changed_at: AwareDatetime | None = Field(default=None, exclude=True)
    version: int | None = Field(default=None, exclude=True)


class InventoryItem(StoredRecord):
    """How many pieces of an article are where."""

    sku: Key
    name: Text
    quantity: NonNegativeInt
    warehouse: Text | None = None
    unit_price: Money | None = None
    currency: Currency | None = None


class Product(StoredRecord):
    """An article of the catalogue."""

    sku: Key
    name: Text
    description: Text | None = None
    price: Money
    currency: Currency
    active: bool


class OrderLine(ApiModel):
    """One article of an order."""

    sku: Key
    quantity: PositiveInt
    unit_price: Money


class Order(StoredRecord):
    """What a customer ordered."""

    order_no: Key
    customer: Text
    ordered_at: AwareDatetime
    status: Text
    total: Money
    currency: Currency
    lines: list[OrderLine]
    external_ids: ExternalIds | None = None


class Contact(StoredRecord):
    """A person the company deals with."""

    contact_id: Key
    name: Text
    email: Email
    phone: Text | None = None
    company: Text | None = None
    updated_at: AwareDatetime | None = None


class Activity(StoredRecord):
    """Something that happened elsewhere and that the people here want to see."""

    activity_id: Key
    kind: Text
    title: Text
    url: Text | None = None
    actor: Text | None = None
    occurred_at: AwareDatetime | None = None
    data: dict[str, JsonValue] | None = None


class Ticket(StoredRecord):
    """A customer's question, and how far it has got."""

    ticket_no: Key
    title: Text
    description: Text | None = None
    status: Literal["open", "pending", "solved", "closed"]
    priority: Literal["low", "normal", "high", "urgent"] = "normal"
    requester: Email | None = None
    assignee: Text | None = None
    labels: list[Key] = Field(default=[], max_length=50)
    external_ids: ExternalIds | None = None


class Adjustment(ApiModel):
    """A change of one item's stock."""

    action: Literal["add", "remove", "set"]
    quantity: NonNegativeInt


_NOT_OF_THE_CALLER = {"changed_at", "version"}
RecordT = TypeVar("RecordT", bound=StoredRecord)


class Batch(ApiModel, Generic[RecordT]):
    """Records that are stored all together or not at all."""

    records: list[RecordT] = Field(max_length=MAX_BATCH_RECORDS)


@dataclass(frozen=True)
class Resource:
    """One collection of the API.

    Attributes:
        name: As in the path.
        singular: As in the types of its events, e.g. "order" of "order.created".
        key_field: The business key by which records are upserted.
        record: How one record looks.
        batch: How many of them look.
    """

    name: str
    singular: str
    key_field: str
    record: type[StoredRecord]
    batch: type[Batch[Any]]

    def key_of(self, record: StoredRecord) -> str:
        """The record's business key."""
        key: str = getattr(record, self.key_field)
        return key

    @property
    def columns(self) -> list[str]:
        """The record's fields in order."""
        return [name for name in self.record.model_fields if name not in _NOT_OF_THE_CALLER]


RESOURCES = {
    resource.name: resource
    for resource in (
        Resource("inventory", "inventory_item", "sku", InventoryItem, Batch[InventoryItem]),
        Resource("products", "product", "sku", Product, Batch[Product]),
        Resource("orders", "order", "order_no", Order, Batch[Order]),
        Resource("contacts", "contact", "contact_id", Contact, Batch[Contact]),
        Resource("activities", "activity", "activity_id", Activity, Batch[Activity]),
        Resource("tickets", "ticket", "ticket_no", Ticket, Batch[Ticket]),
    )
}
