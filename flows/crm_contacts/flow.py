"""Keep contacts the same in the CRM and in the application, whoever edits them where."""

from __future__ import annotations

from typing import Any

from prefect import State
from prefect.states import Completed

from blocks.errors import IntegrationError
from flows.crm_contacts.contacts import CRM, OWN_APP, ContactRule
from flows.crm_contacts.deliveries import ContactSync, open_contacts
from tasks.core.threads import in_thread
from tasks.deliveries import ConsumerSettings, handle_deliveries
from tasks.integration_flow import flow, run_name
from tasks.outcomes import failed
from tasks.two_way import (
    ReconcileReport,
    bring_unseen_in_step,
    find_all_unseen,
    joined,
    reconcile_list,
    show_reconciled,
)

_NAMED = 3


@flow(name="crm-contacts-import", flow_run_name=run_name())
async def crm_contacts_import(
    crm: str = "http-api/crm",
    application: str = "http-api/own-app",
    rule: ContactRule = ContactRule(),
    payload: dict[str, Any] | None = None,
    consumer: ConsumerSettings = ConsumerSettings(),
) -> State[Any]:
    """Take the waiting events of the CRM and let the application's contacts follow.

    An event says only which contact to look at: both sides are read as they are now, and whoever
    is behind is written. Echoes of our own changes are ignored, which their task runs say.

    Args:
        crm: The block of the CRM.
        application: The block of the application.
        rule: What prevails when both sides have changed a contact.
    """
    async with open_contacts(crm, application, rule, for_deliveries=True) as contacts:
        return await handle_deliveries(
            "crm_contacts_import",
            contacts.handle_crm_event,
            settings=consumer,
            payload=payload,
        )


@flow(name="crm-contacts-export", flow_run_name=run_name())
async def crm_contacts_export(
    crm: str = "http-api/crm",
    application: str = "http-api/own-app",
    rule: ContactRule = ContactRule(),
    payload: dict[str, Any] | None = None,
    consumer: ConsumerSettings = ConsumerSettings(),
) -> State[Any]:
    """Take the waiting events of the application and let the CRM's contacts follow.

    The same as the import, the other way round; both decide by the same rule.

    Args:
        crm: The block of the CRM.
        application: The block of the application.
        rule: What prevails when both sides have changed a contact.
    """
    async with open_contacts(crm, application, rule, for_deliveries=True) as contacts:
        return await handle_deliveries(
            "crm_contacts_export",
            contacts.handle_own_event,
            settings=consumer,
            payload=payload,
        )


@flow(name="crm-contacts-initial-sync", flow_run_name=run_name(time="%H:%M"))
async def crm_contacts_initial_sync(
    crm: str = "http-api/crm",
    application: str = "http-api/own-app",
    rule: ContactRule = ContactRule(),
) -> State[Any]:
    """Pair all contacts by e-mail address, and make on each side those that it lacks.

    Run it once, after activation. It deletes nothing; Retry goes on at the page that failed.

    Args:
        crm: The block of the CRM.
        application: The block of the application.
        rule: What prevails where both sides know a contact differently.
    """
    async with open_contacts(crm, application, rule) as contacts:
        try:
            of_crm, of_own_app = await _reconcile_lists(contacts)
        except IntegrationError as error:
            return failed(f"{error}; Retry goes on at the page that failed")
        return await _ended("crm-contacts-initial-sync", of_crm, of_own_app, ReconcileReport())


@flow(name="crm-contacts-reconcile", flow_run_name=run_name(time="%H:%M"))
async def crm_contacts_reconcile(
    crm: str = "http-api/crm",
    application: str = "http-api/own-app",
    rule: ContactRule = ContactRule(),
    max_missing: int = 50,
) -> State[Any]:
    """Find what events did not tell: list both sides, bring in step what differs or is gone.

    Contacts that are in step cost no call but the list's. Retry goes on where the run failed.

    Args:
        crm: The block of the CRM.
        application: The block of the application.
        rule: What prevails when both sides have changed a contact.
        max_missing: If more contacts than this are gone at once, none of them is followed: the
            side that misses them may be the wrong one, or be restored from a backup.
    """
    async with open_contacts(crm, application, rule) as contacts:
        try:
            of_crm, of_own_app = await _reconcile_lists(contacts)
            seen = {CRM: of_crm.seen, OWN_APP: of_own_app.seen}
            unseen = await in_thread(find_all_unseen, contacts.two_way, seen)
            if len(unseen) > max_missing:
                return failed(
                    f"{len(unseen)} contacts are gone, more than max_missing ({max_missing}); "
                    "nothing was deleted. Make sure that both sides are the right ones, then run "
                    "it once with a greater max_missing"
                )
            names = {CRM: contacts.crm.name, OWN_APP: contacts.own_app.name}
            of_unseen = await bring_unseen_in_step(contacts.two_way, unseen, names)
        except IntegrationError as error:
            return failed(str(error))
        return await _ended("crm-contacts-reconcile", of_crm, of_own_app, of_unseen)


async def _reconcile_lists(contacts: ContactSync) -> tuple[ReconcileReport, ReconcileReport]:
    """Reconcile the list of the CRM, then that of the application."""
    of_crm = await reconcile_list(contacts.two_way, contacts.crm)
    of_own_app = await reconcile_list(contacts.two_way, contacts.own_app)
    return of_crm, of_own_app


async def _ended(
    key: str, of_crm: ReconcileReport, of_own_app: ReconcileReport, of_unseen: ReconcileReport
) -> State[Any]:
    report = joined([of_crm, of_own_app, of_unseen])
    await show_reconciled(key, report)
    message = (
        f"{len(of_crm.seen)} contacts in the CRM, {len(of_own_app.seen)} in the application; "
        f"{len(report.brought_in_step)} brought in step"
    )
    if not report.refused:
        return Completed(message=message)
    named = "; ".join(f"{each.record}: {each.what}" for each in report.refused[:_NAMED])
    return failed(f"{message}, {len(report.refused)} could not be: {named}")
