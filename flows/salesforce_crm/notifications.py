"""What Salesforce announces, and the records that are fetched to complete it.

Source: SOAP API: outbound messaging; object reference: Opportunity, Contact.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from decimal import Decimal
from functools import partial
from typing import Annotated, Any, TypeVar

from pydantic import AwareDatetime, BaseModel, Field, StringConstraints, ValidationError

from blocks.errors import BadPayloadError
from tasks.api import ApiClient, BatchLoader, open_api_for_deliveries
from tasks.core.connectors.salesforce import MAX_IDS, Fetched, checked_id, fetch_by_id
from tasks.deliveries import Delivery, Outcome, dead_letter, ignored

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


Complete = Callable[[Delivery], Any]


class Completion:
    """Completes thin notifications with the records as they are now.

    Args:
        loader: Fetches records, many at once.
        object_type: What the notifications are about.
    """

    def __init__(self, loader: BatchLoader[str, Fetched], object_type: str) -> None:
        self._loader = loader
        self._object_type = object_type

    async def complete(self, delivery: Delivery, model: type[ModelT]) -> ModelT | Outcome:
        """The record that a notification is about, or what became of the delivery without it.

        A record deleted meanwhile needs nothing done; one that we cannot see makes a dead letter.

        Args:
            delivery: The notification.
            model: What the record must be like.

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
            return model.model_validate(fetched.record)
        except ValidationError as exc:
            raise BadPayloadError(
                f"{self._object_type} {id_}: {_faults(exc)}; correct it in Salesforce, which "
                "announces it anew, or replay",
                system="Salesforce",
                operation="read record",
                record=delivery.id,
            ) from exc


@asynccontextmanager
async def both_sides(
    application: str,
    salesforce: str,
    model: type[SalesforceRecord],
    *,
    without: Collection[str] = (),
) -> AsyncIterator[tuple[ApiClient, Completion]]:
    """Open the application, and what completes notifications with records of Salesforce.

    Args:
        application: Its block.
        salesforce: Its block.
        model: What the notifications are about, named as at Salesforce.
        without: Fields of the model that are not fetched.
    """
    async with (
        open_api_for_deliveries(application) as api,
        open_api_for_deliveries(salesforce) as source,
    ):
        fetch = partial(fetch_by_id, source, model.__name__, model.fields(without))
        yield api, Completion(BatchLoader(fetch, max_keys=MAX_IDS), model.__name__)


def _faults(exc: ValidationError) -> str:
    faults = exc.errors(include_input=False, include_url=False, include_context=False)
    return "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in faults[:5])
