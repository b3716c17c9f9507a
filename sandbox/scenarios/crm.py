"""The CRM, and the people on both sides who edit contacts now and then."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import httpx

from blocks.http_api import HttpApi
from sandbox.scenarios import Sandbox
from sandbox.systems import crm_api
from sandbox.systems.crm_api import CrmSandbox

_EVERY_S = 60
_MOST_CONTACTS = 30
_PEOPLE = (
    ("Ada Okafor", "Northwind"),
    ("Bruno Marques", "Blue Harbour"),
    ("Chloé Lefèvre", "Kestrel & Sons"),
    ("Dmitri Ivanov", "Zephyr"),
    ("Elif Yıldız", "Ostrava Steel"),
)


@contextmanager
def run(sandbox: Sandbox) -> Iterator[None]:
    """Serve; every minute somebody edits a contact in the CRM, and somebody in the application."""
    application = sandbox.blocks["http-api/own-app"]
    assert isinstance(application, HttpApi)  # noqa: S101 - the sandbox made it
    chance, numbers = random.Random(), count()
    with crm_api.start(port=sandbox.port("crm"), folder=sandbox.data / "crm") as crm:
        sandbox.blocks["http-api/crm"] = crm.block()
        if not crm.contacts.all():
            for number, (name, company) in enumerate(_PEOPLE):
                crm.contacts.add(_contact(name, company, number))

        def edit_contacts() -> None:
            print("the CRM's people", _edit_crm(crm, chance, next(numbers)), flush=True)
            with application.get_client() as client:
                print("our people", _edit_application(client, chance), flush=True)

        sandbox.every(_EVERY_S, edit_contacts)
        yield


def _contact(name: str, company: str, number: int) -> dict[str, Any]:
    first = name.split(maxsplit=1)[0].encode("ascii", "ignore").decode().lower()
    return {
        "display_name": name,
        "email_address": f"{first}.{number}@partner.example",
        "phone_number": f"+49 221 555 {number:04}",
        "organisation": company,
    }


def _edit_crm(crm: CrmSandbox, chance: random.Random, number: int) -> str:
    """Mostly a change; sometimes a new contact, a merge or a deletion."""
    contacts = crm.contacts.all()
    if len(contacts) < len(_PEOPLE) or (number % 5 == 1 and len(contacts) < _MOST_CONTACTS):
        name, company = chance.choice(_PEOPLE)
        made = crm.contacts.add(_contact(name, company, chance.randrange(10, 10_000)))
        return f"added {made['id']}"
    first, second = chance.sample(contacts, 2)
    if number % 7 == 3:
        crm.contacts.merge(first["id"], into=second["id"])
        return f"merged {first['id']} into {second['id']}"
    if number % 11 == 5:
        crm.contacts.remove(first["id"])
        return f"deleted {first['id']}"
    crm.contacts.change(first["id"], {"phone_number": f"+49 221 {chance.randrange(10**6):06}"})
    return f"changed the phone of {first['id']}"


def _edit_application(client: httpx.Client, chance: random.Random) -> str:
    """A change of a contact that began in the CRM, or a new one while there is none."""
    listed = client.get("contacts", params={"limit": 1000}).raise_for_status().json()["records"]
    known = [each["contact_id"] for each in listed if each["contact_id"].startswith(("crm-", "K-"))]
    if not known or (chance.random() < 0.2 and len(known) < _MOST_CONTACTS):
        name, company = chance.choice(_PEOPLE)
        id_ = f"K-{chance.randrange(10**6):06}"
        contact = {"contact_id": id_, "name": name, "email": f"{id_.lower()}@example.com"}
        client.put(f"contacts/{id_}", json={**contact, "company": company}).raise_for_status()
        return f"added {id_}"
    id_ = chance.choice(known)
    company = chance.choice(_PEOPLE)[1]
    client.patch(f"contacts/{id_}", json={"company": company}).raise_for_status()
    return f"changed the company of {id_}"
