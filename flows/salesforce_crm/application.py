"""How the application shows what happens in Salesforce: activities, orders and contacts."""

from __future__ import annotations

from typing import Any

from blocks.errors import BadPayloadError
from flows.salesforce_crm.notifications import Contact, Opportunity
from tasks.api import ApiClient, path_segment
from tasks.deliveries import Outcome, done, ignored


def add_activity(api: ApiClient, opportunity: Opportunity, key: str) -> None:
    """An opportunity has come up; the same key again changes nothing.

    Raises:
        IntegrationError: As in `ApiClient.call`.
    """
    _put(
        api,
        "activities",
        key,
        {
            "activity_id": key,
            "kind": "opportunity.created",
            "title": opportunity.name[:200],
            "occurred_at": opportunity.created_at.isoformat(),
            "data": {"opportunity": opportunity.id, "stage": opportunity.stage},
        },
    )


def put_opportunity(
    api: ApiClient, opportunity: Opportunity, _key: str, *, currency: str | None
) -> Outcome:
    """Let the application know how an opportunity stands: won, it is an order.

    Args:
        api: The application.
        opportunity: As it is now.
        currency: Of an opportunity that says none.

    Raises:
        BadPayloadError: It is won, and nobody said for how much, or in which currency.
        IntegrationError: As in `ApiClient.call`.
    """
    if not opportunity.is_won:
        _put(
            api,
            "activities",
            f"opportunity-{opportunity.id}",
            {
                "activity_id": f"opportunity-{opportunity.id}",
                "kind": "opportunity.stage",
                "title": f"{opportunity.name[:150]}: {opportunity.stage}"[:200],
                "occurred_at": opportunity.changed_at.isoformat(),
                "data": {"opportunity": opportunity.id},
            },
        )
        return done(opportunity.stage)
    currency = opportunity.currency or currency
    if opportunity.amount is None or currency is None:
        lacks = "amount" if opportunity.amount is None else "currency"
        raise BadPayloadError(
            f"opportunity {opportunity.id} is won and has no {lacks}; enter it in Salesforce",
            system="Salesforce",
            operation="read record",
            record=opportunity.id,
        )
    order_no = f"SF-{opportunity.id}"
    _put(
        api,
        "orders",
        order_no,
        {
            "order_no": order_no,
            "customer": opportunity.name[:200],
            "ordered_at": opportunity.changed_at.isoformat(),
            "status": "won",
            "total": str(opportunity.amount),
            "currency": currency,
            "lines": [],
        },
    )
    return done(f"order {order_no}")


def put_contact(api: ApiClient, contact: Contact, _key: str) -> Outcome | None:
    """A person the company deals with; without an e-mail address there is nothing to put.

    Raises:
        IntegrationError: As in `ApiClient.call`.
    """
    if contact.email is None:
        return ignored("the contact has no e-mail address")
    contact_id = f"SF-{contact.id}"
    _put(
        api,
        "contacts",
        contact_id,
        {
            "contact_id": contact_id,
            "name": f"{contact.first_name or ''} {contact.last_name}".strip(),
            "email": contact.email,
            "phone": contact.phone,
        },
    )
    return None


def _put(api: ApiClient, resource: str, key: str, record: dict[str, Any]) -> None:
    api.call(
        "PUT",
        f"{resource}/{path_segment(key)}",
        json=record,
        headers={"X-Source": "salesforce-crm"},
        operation=f"put into {resource}",
        record=key,
    )
