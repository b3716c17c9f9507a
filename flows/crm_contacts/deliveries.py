"""What an event of either side means: look at that contact, on both sides, and bring it in step."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from blocks.errors import BadPayloadError
from flows.crm_contacts.adapters import CrmRecords, OwnAppRecords
from flows.crm_contacts.contacts import CRM, KIND, OWN_APP, ContactRule, CrmEvent, OwnEvent
from tasks.api import ApiClient, open_api_for_deliveries, open_connection
from tasks.deliveries import Delivery, Outcome, done, ignored
from tasks.state import state_database
from tasks.two_way import ConflictRule, IdentityMap, Snapshot, Synced, TwoWaySync

_ECHO = "as both sides have it already: an echo of our own change, or nothing new"


class ContactSync:
    """Both sides, open, and the rule between them; threads may share it.

    Args:
        identities: Which contact is which.
        crm: The CRM.
        application: The application.
        rule: What prevails.
    """

    def __init__(
        self, identities: IdentityMap, crm: ApiClient, application: ApiClient, rule: ConflictRule
    ) -> None:
        self._identities = identities
        self._application = application
        self._rule = rule
        self.crm = CrmRecords(crm)
        self.own_app = OwnAppRecords(application)
        self.two_way = TwoWaySync(identities, self.crm, self.own_app, rule)

    def handle_crm_event(self, delivery: Delivery) -> Outcome:
        """Follow what the CRM tells."""
        if delivery.event == "ping":
            return ignored("ping: the webhook is connected")
        event = delivery.parse(CrmEvent)
        contact = event.contact
        match event.type:
            case "contact.created" | "contact.updated":
                if self.two_way.is_in_step(CRM, contact.id, contact.snapshot()):
                    return ignored(_ECHO)
                return _told(self.two_way.sync(CRM, contact.id))
            case "contact.merged" if event.merged_id is not None:
                merged = self.two_way.sync(CRM, event.merged_id)
                survivor = self.two_way.sync(CRM, contact.id)
                return _told(_together(merged, survivor))
            case "contact.deleted":
                return _told(self.two_way.sync(CRM, contact.id))
            case other:
                raise _unknown(other, delivery)

    def handle_own_event(self, delivery: Delivery) -> Outcome:
        """Follow what the application tells."""
        if delivery.event == "ping":
            return ignored("ping: the webhook is connected")
        event = delivery.parse(OwnEvent)
        id_, snapshot = event.data.contact_id, event.data.snapshot()
        match event.type:
            case "contact.created" | "contact.updated":
                if self.two_way.is_in_step(OWN_APP, id_, snapshot):
                    return ignored(_ECHO)
                return _told(self._knowing(id_, snapshot).sync(OWN_APP, id_))
            case "contact.deleted":
                return _told(self.two_way.sync(OWN_APP, id_))
            case other:
                raise _unknown(other, delivery)

    def _knowing(self, contact_id: str, snapshot: Snapshot) -> TwoWaySync:
        own_app = OwnAppRecords(self._application, {contact_id: snapshot})
        return TwoWaySync(self._identities, self.crm, own_app, self._rule)


@asynccontextmanager
async def open_contacts(
    crm: str, application: str, rule: ContactRule, *, for_deliveries: bool = False
) -> AsyncIterator[ContactSync]:
    """Open both APIs and the identity map.

    Args:
        crm: Its block.
        application: Its block.
        rule: What prevails.
        for_deliveries: Whether each call is attempted once.
    """
    open_ = open_api_for_deliveries if for_deliveries else open_connection
    async with (
        state_database() as engine,
        open_(crm) as crm_api,
        open_(application) as own_api,
    ):
        identities = IdentityMap(engine, KIND)
        yield ContactSync(identities, crm_api, own_api, rule.as_conflict_rule())


def _told(synced: Synced) -> Outcome:
    if not synced.done:
        return ignored(_ECHO)
    message = "; ".join(synced.done)
    if synced.conflicts:
        message += f"; both sides had changed {', '.join(synced.conflicts)}: the rule decided"
    return done(message)


def _together(*all_synced: Synced) -> Synced:
    return Synced(
        tuple(what for synced in all_synced for what in synced.done),
        tuple(name for synced in all_synced for name in synced.conflicts),
    )


def _unknown(event: str, delivery: Delivery) -> BadPayloadError:
    return BadPayloadError(
        f"there is no rule for {event!r}; take it out of the webhook's events",
        system=delivery.endpoint,
        operation="read event",
        record=delivery.id,
    )
