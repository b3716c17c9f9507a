"""What Salesforce announces, and the records that are fetched to complete it.

Source: SOAP API: outbound messaging; object reference: Opportunity, Contact.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from decimal import Decimal
from functools import partial
from typing import Annotated, Any, Generic, TypeVar

from pydantic import AwareDatetime, BaseModel, Field, StringConstraints, ValidationError

from blocks.errors import BadPayloadError
from tasks.api import BatchLoader, open_api_for_deliveries
from tasks.core.connectors.salesforce import MAX_IDS, Fetched, checked_id, fetch_by_id
from tasks.core.threads import in_thread
from tasks.deliveries import Delivery, Handle, Outcome, dead_letter, ignored

Text = Annotated[str, StringConstraints(min_length=1, max_length=10_000)]
Currency = Annotated[str, StringConstraints(pattern="^[A-Z]{3}$")]
CURRENCY_FIELD = "CurrencyIsoCode"
"""Known only where several currencies are switched on, which is not Salesforce's default."""
ModelT = TypeVar("ModelT", bound="SalesforceRecord")


class Notification(BaseModel):
    """One notification, as the gateway reads it out of an outbound message."""

    notification_id: str
    action_id: str
    object_type: str
    record: dict[str, Any]


class SalesforceRecord(BaseModel):
    """What all records have; a model's fields are those that are fetched."""

    id: str = Field(alias="Id")
    changed_at: AwareDatetime = Field(alias="SystemModstamp")

    @classmethod
    def fields(cls, without: Collection[str] = ()) -> list[str]:
        """The names of the model's fields at Salesforce."""
        names = [field.alias or name for name, field in cls.model_fields.items()]
        return [name for name in names if name not in without]


class Opportunity(SalesforceRecord):
    """A deal that may come about."""

    name: Text = Field(alias="Name")
    stage: Text = Field(alias="StageName")
    amount: Annotated[Decimal, Field(ge=0, max_digits=14)] | None = Field(alias="Amount")
    currency: Currency | None = Field(None, alias=CURRENCY_FIELD)
    is_won: bool = Field(alias="IsWon")
    created_at: AwareDatetime = Field(alias="CreatedDate")


class Contact(SalesforceRecord):
    """A person."""

    first_name: str | None = Field(alias="FirstName")
    last_name: Text = Field(alias="LastName")
    email: Annotated[str, StringConstraints(pattern=r"^[^@\s]+@[^@\s]+$")] | None = Field(
        alias="Email"
    )
    phone: str | None = Field(alias="Phone")


class CurrentRecords(Generic[ModelT]):
    """Completes thin notifications with the records as they are now.

    Args:
        loader: Fetches records, many at once.
        model: What the records must be like, named as at Salesforce.
    """

    def __init__(self, loader: BatchLoader[str, Fetched], model: type[ModelT]) -> None:
        self._loader = loader
        self._model = model
        self._object_type = model.__name__

    def handling_by(self, apply: Callable[[ModelT, str], Outcome | None]) -> Handle:
        """Handle each notification by fetching its record, and apply that.

        Args:
            apply: Called in a thread, with the record and the delivery's idempotency key.
        """

        async def handle(delivery: Delivery) -> Outcome | None:
            record = await self.complete(delivery)
            if isinstance(record, Outcome):
                return record
            return await in_thread(apply, record, delivery.idempotency_key)

        return handle

    async def complete(self, delivery: Delivery) -> ModelT | Outcome:
        """The record that a notification is about, or what became of the delivery without it.

        A record deleted meanwhile needs nothing done; one that we cannot see is a dead letter.

        Args:
            delivery: The notification.

        Raises:
            BadPayloadError: The notification or the record breaks its contract.
            IntegrationError: It could not be fetched.
        """
        notification = delivery.parse(Notification)
        id_ = checked_id(notification.record.get("Id"), record=delivery.id)
        fetched = await self._loader.load(id_)
        if fetched.is_deleted:
            return ignored(f"{self._object_type} {id_} was deleted in Salesforce meanwhile")
        if fetched.record is None:
            return dead_letter(
                f"{self._object_type} {id_} cannot be seen: it was purged, or the block's user "
                "lacks the permission; grant it and replay, or purge the delivery"
            )
        try:
            return self._model.model_validate(fetched.record)
        except ValidationError as exc:
            raise BadPayloadError(
                f"{self._object_type} {id_}: {_faults(exc)}; correct it in Salesforce, which "
                "announces it anew, or replay",
                system="Salesforce",
                operation="read record",
                record=delivery.id,
            ) from exc


@asynccontextmanager
async def current_records(
    salesforce: str, model: type[ModelT], *, without: Collection[str] = ()
) -> AsyncIterator[CurrentRecords[ModelT]]:
    """Open what completes notifications with records of Salesforce.

    Args:
        salesforce: Its block.
        model: What the notifications are about, named as at Salesforce.
        without: Fields of the model that are not fetched.
    """
    async with open_api_for_deliveries(salesforce) as source:
        fetch = partial(fetch_by_id, source, model.__name__, model.fields(without))
        yield CurrentRecords(BatchLoader(fetch, max_keys=MAX_IDS), model)


def _faults(exc: ValidationError) -> str:
    faults = exc.errors(include_input=False, include_url=False, include_context=False)
    return "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in faults[:5])
