"""Contacts two-way as a whole: both APIs, the inbox, the identity map and a Prefect server."""

from __future__ import annotations

import itertools
import json
import os
import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from blocks.errors import BadPayloadError, MisconfiguredError, TransientError
from blocks.http_api import ApiKeyAuth, HttpApi
from flows.crm_contacts.adapters import CrmRecords, OwnAppRecords
from flows.crm_contacts.contacts import (
    CRM,
    KIND,
    OWN_APP,
    ContactRule,
    CrmContact,
    OwnContact,
)
from flows.crm_contacts.deliveries import ContactSync
from flows.crm_contacts.flow import (
    crm_contacts_export,
    crm_contacts_import,
    crm_contacts_initial_sync,
    crm_contacts_reconcile,
)
from flows.integration_activation.flow import activate_integration, deactivate_integration
from sandbox.gateway_process import running_gateway
from tasks.api import open_api
from tasks.core.intake.inbox.delivery import Delivery
from tasks.core.sync.two_way.identity_map.pairs import IdentityMap
from tasks.two_way import find_all_unseen

# Prefect's own clients leave sockets to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

FLOW = Path(__file__).parents[2] / "flows" / "crm_contacts"
SAMPLES = FLOW / "samples"
QUICK = {"consumer": {"idle_timeout_s": 0, "retry_delays_s": [0.01], "concurrency": 4}}
ADA = {"display_name": "Ada Okafor", "email_address": "ada@example.com", "phone_number": "1"}
BEA = {"name": "Bea Satō", "email": "bea@example.com", "company": "Kestrel"}


class Both:
    """Both sides as their people see them."""

    def __init__(self, crm, own_app):
        self.crm = crm
        self.own_app = own_app

    def own(self, contact_id):
        answer = self.own_app.http.get(f"/api/v1/contacts/{contact_id}")
        return answer.json() if answer.status_code == 200 else None

    def put(self, contact_id, **fields):
        path = f"/api/v1/contacts/{contact_id}"
        answer = self.own_app.http.put(path, json={"contact_id": contact_id, **fields})
        return answer.raise_for_status().json()

    def patch(self, contact_id, **fields):
        answer = self.own_app.http.patch(f"/api/v1/contacts/{contact_id}", json=fields)
        return answer.raise_for_status().json()

    def remove(self, contact_id):
        last = self.own(contact_id)
        self.own_app.http.delete(f"/api/v1/contacts/{contact_id}").raise_for_status()
        return last

    def contents(self):
        """What both sides share, sorted: of the CRM, of the application."""
        of_crm = [CrmContact.model_validate(c).snapshot().values for c in self.crm.contacts.all()]
        of_own = [
            OwnContact.model_validate(contact).snapshot().values
            for contact in self.own_app.records("contacts")
        ]
        return tuple(sorted(map(json.dumps, each)) for each in (of_crm, of_own))

    def are_equal(self):
        of_crm, of_own = self.contents()
        return of_crm == of_own


@pytest.fixture
def both(crm, own_app):
    return Both(crm, own_app)


@pytest.fixture
def blocks(crm, own_app):
    auth = ApiKeyAuth(key=own_app.api_key)
    return crm.block(max_attempts=1), HttpApi(base_url=f"{own_app.base_url}/api/v1", auth=auth)


@pytest.fixture
def place(blocks, runs, inbox):
    """Both sides are known to Prefect, and the inbox is empty."""
    for block, name in zip(blocks, ("crm", "own-app"), strict=True):
        block.save(name, overwrite=True)


@pytest.fixture
def contacts(blocks, inbox):
    """The sync between both sides, without Prefect."""
    crm_block, own_block = blocks
    once = own_block.model_copy(update={"max_attempts": 1})
    with open_api(crm_block) as crm_api, open_api(once) as own_api:
        identities = IdentityMap(inbox.engine, KIND)
        yield ContactSync(identities, crm_api, own_api, ContactRule().as_conflict_rule())


def crm_event(event_type, contact, **more):
    return {"id": "evt_1", "type": event_type, "contact": contact, **more}


def own_event(event_type, record):
    return {"id": "evt_1", "type": event_type, "data": record, "source": None}


def sample(payload):
    return Delivery.sample(payload, event=payload["type"], integration="x", id="d1")


def deliver(inbox, direction, payload):
    return inbox.deliver(f"crm_contacts_{direction}", payload, event=payload["type"])


def test_a_crm_contact_reaches_the_application_and_its_echo_goes_no_further(
    place, both, runs, inbox
):
    """The import makes it, and the application's event of that is ignored by the export."""
    made = both.crm.contacts.add(ADA)
    deliver(inbox, "import", crm_event("contact.created", made))
    state = runs.start(crm_contacts_import, **QUICK)
    assert (state.is_completed(), state.message) == (True, "1 done")
    own = both.own(f"crm-{made['id']}")
    assert (own["name"], own["email"], own["phone"]) == ("Ada Okafor", "ada@example.com", "1")
    deliver(inbox, "export", own_event("contact.created", own))
    both.crm.requests.clear()
    state = runs.start(crm_contacts_export, **QUICK)
    assert (state.is_completed(), state.message) == (True, "1 ignored")
    assert both.crm.requests == []


def test_an_application_contact_reaches_the_crm(place, both, runs, inbox):
    """The export makes it once, however often the event comes, and follows its changes."""
    made = both.put("K-1", **BEA)
    for _ in range(3):
        deliver(inbox, "export", own_event("contact.created", made))
    assert runs.start(crm_contacts_export, **QUICK).is_completed()
    [contact] = both.crm.contacts.all()
    assert contact["properties"]["organisation"] == "Kestrel"
    changed = both.patch("K-1", phone="7", company=None)
    deliver(inbox, "export", own_event("contact.updated", changed))
    state = runs.start(crm_contacts_export, **QUICK)
    assert state.message == "1 done"
    assert both.are_equal()
    [contact] = both.crm.contacts.all()
    assert (contact["properties"]["phone_number"], contact["properties"]["organisation"]) == (
        "7",
        None,
    )


def test_fields_of_one_side_alone_are_left_as_they_are(contacts, both):
    """What only one side has, or only one side's form of a value, survives the other's changes."""
    made = both.crm.contacts.add({**ADA, "lifecycle_stage": "customer"})
    contacts.handle_crm_event(sample(crm_event("contact.created", made)))
    own_id = f"crm-{made['id']}"
    both.patch(own_id, email="Ada@Example.com")
    contacts.two_way.sync(OWN_APP, own_id)
    both.crm.contacts.change(made["id"], {"phone_number": "2"})
    contacts.two_way.sync(CRM, made["id"])
    assert (both.own(own_id)["email"], both.own(own_id)["phone"]) == ("Ada@Example.com", "2")
    both.patch(own_id, phone="3")
    contacts.two_way.sync(OWN_APP, own_id)
    properties = both.crm.contacts.get(made["id"])["properties"]
    assert (properties["lifecycle_stage"], properties["phone_number"]) == ("customer", "3")


def paired(contacts, both, **properties):
    made = both.crm.contacts.add({**ADA, **properties})
    contacts.handle_crm_event(sample(crm_event("contact.created", made)))
    return made["id"], f"crm-{made['id']}"


def test_the_newest_change_wins_and_the_task_says_so(contacts, both):
    """Both sides change the phone: the later one counts, the name of the other side survives."""
    crm_id, own_id = paired(contacts, both)
    changed = both.crm.contacts.change(crm_id, {"phone_number": "crm", "display_name": "Ada B"})
    both.patch(own_id, phone="own")
    outcome = contacts.handle_crm_event(sample(crm_event("contact.updated", changed)))
    assert outcome.message == (
        "CRM updated (phone); own app updated (name); both sides had changed phone: "
        "the rule decided"
    )
    assert both.own(own_id)["phone"] == "own"
    assert both.are_equal()


def test_an_event_tells_when_a_field_was_changed(contacts, both):
    """The application knows the instant of its last change only; its events know more."""
    crm_id, own_id = paired(contacts, both)
    records = both.patch(own_id, phone="own")
    both.crm.contacts.change(crm_id, {"phone_number": "crm"})
    both.patch(own_id, name="Ada B")  # makes the contact newer, not its phone
    contacts.handle_own_event(sample(own_event("contact.updated", records)))
    assert both.own(own_id)["phone"] == "crm"
    assert both.are_equal()


def test_an_owned_field_is_set_back(blocks, inbox, both):
    """What the CRM owns the application cannot change."""
    rule = ContactRule(owners={"company": "crm"}).as_conflict_rule()
    with open_api(blocks[0]) as crm_api, open_api(blocks[1]) as own_api:
        contacts = ContactSync(IdentityMap(inbox.engine, KIND), crm_api, own_api, rule)
        crm_id, own_id = paired(contacts, both, organisation="Kestrel")
        records = both.patch(own_id, company="Zephyr", phone="9")
        outcome = contacts.handle_own_event(sample(own_event("contact.updated", records)))
    assert outcome.message == "CRM updated (phone); own app updated (company)"
    assert both.own(own_id)["company"] == "Kestrel"
    assert both.crm.contacts.get(crm_id)["properties"]["organisation"] == "Kestrel"


def test_deletions_go_over_and_stay(contacts, both):
    """In both directions; events of before that come late bring nothing back."""
    crm_id, own_id = paired(contacts, both)
    late = both.own(own_id)
    both.crm.contacts.remove(crm_id)
    contacts.handle_crm_event(sample(crm_event("contact.deleted", _shown(crm_id))))
    assert both.own(own_id) is None
    contacts.handle_own_event(sample(own_event("contact.updated", late)))
    assert both.contents() == ([], [])
    crm_id, own_id = paired(contacts, both)
    last = both.remove(own_id)
    outcome = contacts.handle_own_event(sample(own_event("contact.deleted", last)))
    assert outcome.message == "CRM deleted"
    assert both.contents() == ([], [])


def _shown(crm_id):
    at = "2026-03-01T09:00:00Z"
    return {"id": crm_id, "properties": {}, "modified": {}, "updated_at": at, "version": 1}


def test_merged_contacts_are_merged_in_the_application(contacts, both):
    """One of the two stays there as well, with what people had changed of the other."""
    first, first_own = paired(contacts, both)
    second, second_own = paired(contacts, both, email_address="a.okafor@example.com")
    both.patch(first_own, company="Zephyr")
    merged = both.crm.contacts.merge(first, into=second)
    event = crm_event("contact.merged", merged, merged_id=first)
    outcome = contacts.handle_crm_event(sample(event))
    assert "own app merged" in outcome.message
    assert both.own(first_own) is None
    assert both.own(second_own)["company"] == "Zephyr"
    assert both.are_equal()


def test_what_the_application_refuses_is_dead_lettered_with_what_to_do(place, both, runs, inbox):
    """A contact without an e-mail address waits until the CRM has one, then follows."""
    made = both.crm.contacts.add({"display_name": "Ada"})
    id_ = deliver(inbox, "import", crm_event("contact.created", made))
    state = runs.start(crm_contacts_import, **QUICK)
    assert state.is_failed()
    assert "needs email, which the CRM does not have; add it there" in inbox.reason(id_)
    changed = both.crm.contacts.change(made["id"], {"email_address": "ada@example.com"})
    deliver(inbox, "import", crm_event("contact.updated", changed))
    runs.start(crm_contacts_import, **QUICK)
    assert both.are_equal()


@pytest.mark.parametrize("fault", [503, 0])
def test_a_creation_whose_answer_is_lost_is_not_repeated(contacts, both, fault):
    """Refused or carried out without an answer: there is one contact in the end."""
    made = both.put("K-1", **BEA)
    both.crm.fail_next.append(fault)
    event = own_event("contact.created", made)
    with pytest.raises(TransientError):
        contacts.handle_own_event(sample(event))
    # the CRM's own event of the creation comes first
    for contact in both.crm.contacts.all():
        contacts.handle_crm_event(sample(crm_event("contact.created", contact)))
    contacts.handle_own_event(sample(event))
    assert len(both.crm.contacts.all()) == 1
    assert both.are_equal()


def test_a_change_whose_answer_is_lost_is_no_change_by_people(contacts, both):
    """The CRM has taken a change whose answer got lost, and then the application changes again."""
    crm_id, own_id = paired(contacts, both)
    both.crm.fail_next.append(0)
    with pytest.raises(TransientError):
        contacts.handle_own_event(
            sample(own_event("contact.updated", both.patch(own_id, phone="2")))
        )
    assert both.crm.contacts.get(crm_id)["properties"]["phone_number"] == "2"
    changed = both.patch(own_id, phone="3")
    outcome = contacts.handle_own_event(sample(own_event("contact.updated", changed)))
    assert outcome.message == "CRM updated (phone)"
    assert both.crm.contacts.get(crm_id)["properties"]["phone_number"] == "3"


def test_many_runs_at_once_make_each_contact_once(contacts, both):
    """Both sides meet the same new people at the same instant; each event comes twice."""
    events = []
    for number in range(6):
        email = f"c{number}@example.com"
        made = both.crm.contacts.add({**ADA, "email_address": email})
        events.append((contacts.handle_crm_event, crm_event("contact.created", made)))
        own = both.put(f"K-{number}", name="Ada Okafor", email=email)
        events.append((contacts.handle_own_event, own_event("contact.created", own)))

    def handle(event):
        for _ in range(50):
            try:
                return event[0](sample(event[1]))
            except TransientError:
                time.sleep(0.05)
        raise AssertionError("it never came to it")

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(handle, events * 2))
    assert both.are_equal()
    assert len(both.crm.contacts.all()) == 6


def test_unknown_events_are_refused(contacts):
    """An event that nobody wrote a rule for is dead-lettered; a ping is not."""
    ping = sample({"type": "ping"})
    assert contacts.handle_crm_event(ping).status == "ignored"
    assert contacts.handle_own_event(ping).status == "ignored"
    with pytest.raises(BadPayloadError, match="no rule for"):
        contacts.handle_crm_event(sample(crm_event("contact.archived", _shown("C-1"))))


def test_samples(contacts, both):
    """The samples are as the CRM writes, about contacts that need not exist."""
    for path in sorted(SAMPLES.glob("crm-contacts/*.json")):
        payload = json.loads(path.read_text())
        assert contacts.handle_crm_event(sample(payload)).status == "ignored"


def test_initial_sync_pairs_by_email_and_completes_both_sides(place, both, runs, inbox):
    """Who is on both sides becomes one contact; the others are made on the side that lacks them."""
    for number in range(5):
        both.crm.contacts.add({**ADA, "email_address": f"c{number}@example.com"})
    for number in range(3, 8):
        both.put(f"K-{number}", name="Ada Okafor", email=f"C{number}@Example.com", company="Z")
    state = runs.start(crm_contacts_initial_sync)
    assert state.is_completed(), state.message
    assert "5 contacts in the CRM, 8 in the application; 8 brought in step" in state.message
    assert len(both.crm.contacts.all()) == len(both.own_app.records("contacts")) == 8
    assert both.are_equal()
    state = runs.start(crm_contacts_initial_sync)
    assert state.message.endswith("; 0 brought in step")


def test_an_initial_sync_goes_on_at_the_page_that_failed(place, both, runs, inbox, monkeypatch):
    """Retry does not look through the pages again that were done."""
    monkeypatch.setattr(CrmRecords, "page_size", {"limit": 2})
    monkeypatch.setattr(OwnAppRecords, "page_size", {"limit": 2})
    monkeypatch.setattr("tasks.two_way._RETRY_DELAYS_S", [0.01])
    for number in range(5):
        both.crm.contacts.add({**ADA, "email_address": f"c{number}@example.com"})
    both.own_app.behave("error", status=503, resource="contacts")
    state = runs.start(crm_contacts_initial_sync)
    assert state.is_failed()
    both.own_app.behave("ok")
    assert runs.retry(crm_contacts_initial_sync).is_completed()
    assert both.are_equal()
    both.crm.requests.clear()
    runs.retry(crm_contacts_initial_sync)
    assert both.crm.requests == []


def test_reconcile_finds_what_events_did_not_tell(place, both, runs, inbox, contacts):
    """Changes, creations, deletions and merges, of which no event came, on either side."""
    ids = [paired(contacts, both, email_address=f"c{n}@example.com") for n in range(6)]
    both.crm.contacts.change(ids[0][0], {"phone_number": "new"})
    both.patch(ids[1][1], company="new")
    both.crm.contacts.remove(ids[2][0])
    both.remove(ids[3][1])
    both.crm.contacts.merge(ids[4][0], into=ids[5][0])
    both.crm.contacts.add({**ADA, "email_address": "new@example.com"})
    both.put("K-1", **BEA)
    state = runs.start(crm_contacts_reconcile)
    assert state.is_completed(), state.message
    assert both.are_equal()
    assert len(both.crm.contacts.all()) == 5
    [table] = [each for each in runs.artifacts() if each.key == "crm-contacts-reconcile-changes"]
    assert len(json.loads(table.data)) == 7


def test_reconcile_deletes_nothing_when_a_whole_side_is_gone(place, both, runs, inbox, contacts):
    """Many missing at once are somebody's mistake until somebody says otherwise, changed ones too.

    The initial sync follows none at all.
    """
    rule = {"deletion": "wins"}
    ids = [paired(contacts, both, email_address=f"c{number}@example.com") for number in range(4)]
    both.crm.contacts.clear()
    for _, own_id in ids[:3]:
        both.patch(own_id, phone="new")
    assert runs.start(crm_contacts_initial_sync, rule=rule).is_completed()
    assert len(both.own_app.records("contacts")) == 4
    state = runs.start(crm_contacts_reconcile, rule=rule, max_missing=3)
    assert state.is_failed()
    assert "4 contacts are gone, more than max_missing (3); nothing was deleted" in state.message
    assert len(both.own_app.records("contacts")) == 4
    assert runs.start(crm_contacts_reconcile, rule=rule, max_missing=4).is_completed()
    assert both.contents() == ([], [])


def test_both_sides_call_once_it_is_activated(place, both, runs, inbox, tmp_path, monkeypatch):
    """Registered at both sides, real signed events bring both in step, and then it is quiet."""
    monkeypatch.setenv("INTEGRATIONS_SECRETS_KEY", Fernet.generate_key().decode())
    [declaration] = FLOW.glob("*.yaml")
    database_url = os.environ["INTEGRATIONS_DATABASE_URL"]
    with running_gateway(declaration, tmp_path, database_url, {}) as gateway:
        activate = {"integration": "crm_contacts", "public_url": gateway.url}
        state = runs.start(activate_integration, **activate)
        assert state.message.startswith("2 created"), state.message
        made = both.crm.contacts.add(ADA)
        both.put("K-1", **BEA)
        _consume_until(runs, inbox, both, contacts=2)
        both.crm.contacts.change(made["id"], {"phone_number": "7"})
        both.patch("K-1", company="Zephyr")
        _consume_until(runs, inbox, both, contacts=2)
        both.remove("K-1")
        _consume_until(runs, inbox, both, contacts=1)
    statuses = list(inbox.statuses().values())
    assert set(statuses) <= {"done", "ignored"}
    assert "ignored" in statuses, "echoes and pings"
    assert runs.start(deactivate_integration, integration="crm_contacts").is_completed()
    assert both.crm.webhooks.all() == []


def _consume_until(runs, inbox, both, *, contacts):
    """Let the flows take what arrives until both sides are in step and all is quiet."""
    deadline = time.monotonic() + 60
    quiet = 0
    while quiet < 3:
        assert time.monotonic() < deadline, (both.contents(), inbox.statuses())
        if {"received", "failed"}.isdisjoint(inbox.statuses().values()):
            of_crm, of_own = both.contents()
            quiet = quiet + 1 if of_crm == of_own and len(of_crm) == contacts else 0
            time.sleep(0.2)
            continue
        for flow in (crm_contacts_import, crm_contacts_export):
            assert runs.start(flow, **QUICK).is_completed()


@pytest.mark.parametrize("seed", range(3))
def test_random_edits_over_real_sockets_converge(both, contacts, monkeypatch, seed):
    """Edits, deletions, merges; events lost, repeated, reordered; then reconcile.

    Both sides end with the same contacts, and nothing is left to do.
    """
    play = _Play(both, contacts, random.Random(seed))
    # its events go through the test's hands, which lose and reorder them
    monkeypatch.setattr(both.crm.contacts, "_tell", play.of_crm)
    for _ in range(60):
        play.step()
    play.end()
    assert both.are_equal()
    assert both.crm.contacts.all(), "there is something to compare"
    both.crm.requests.clear()
    play.reconcile()
    assert {method for method, _ in both.crm.requests} <= {"GET"}


class _Play:
    def __init__(self, both, contacts, chance):
        self.both, self.contacts, self.chance = both, contacts, chance
        self.events = []
        self.counter = itertools.count(1)

    def of_crm(self, event_type, content):
        self.events.append((self.contacts.handle_crm_event, {"type": event_type, **content}))

    def _of_own_app(self, event_type, record):
        self.events.append((self.contacts.handle_own_event, own_event(event_type, record)))

    def step(self):
        acts = {
            self.add: 3, self.change: 8, self.remove: 2, self.merge: 1, self.deliver: 8,
            self.lose: 2, self.repeat: 2, self.fail: 1,
        }  # fmt: skip
        self.chance.choices(list(acts), list(acts.values()))[0]()

    def add(self):
        number = next(self.counter)
        email = f"c{self.chance.randrange(8)}@example.com"
        if self.chance.random() < 0.5:
            self.both.crm.contacts.add({"display_name": f"n{number}", "email_address": email})
        else:
            made = self.both.put(f"K-{number}", name=f"n{number}", email=email)
            self._of_own_app("contact.created", made)

    def change(self):
        value = f"v{next(self.counter)}"
        if self.chance.random() < 0.5:
            if contact := self._some(self.both.crm.contacts.all()):
                name = self.chance.choice(["phone_number", "organisation", "display_name"])
                self.both.crm.contacts.change(contact["id"], {name: value})
        elif record := self._some(self.both.own_app.records("contacts")):
            name = self.chance.choice(["phone", "company", "name"])
            changed = self.both.patch(record["contact_id"], **{name: value})
            self._of_own_app("contact.updated", changed)

    def remove(self):
        if self.chance.random() < 0.5:
            if contact := self._some(self.both.crm.contacts.all()):
                self.both.crm.contacts.remove(contact["id"])
        elif record := self._some(self.both.own_app.records("contacts")):
            self._of_own_app("contact.deleted", self.both.remove(record["contact_id"]))

    def merge(self):
        contacts = self.both.crm.contacts.all()
        if len(contacts) > 1:
            first, second = self.chance.sample(contacts, 2)
            self.both.crm.contacts.merge(first["id"], into=second["id"])

    def fail(self):
        self.both.crm.fail_next = [self.chance.choice([503, 0])]

    def lose(self):
        if self.events:
            self.events.pop(self.chance.randrange(len(self.events)))

    def repeat(self):
        if self.events:
            self.events.append(self.chance.choice(self.events))

    def deliver(self):
        if self.events:
            handle, payload = self.events.pop(self.chance.randrange(len(self.events)))
            try:
                handle(sample(payload))
            except TransientError:
                self.events.append((handle, payload))

    def end(self):
        self.both.crm.fail_next = []
        for _ in range(3):
            self.reconcile()

    def reconcile(self):
        two_way, seen = self.contacts.two_way, {}
        crm = {c["id"]: self.contacts.crm.found(c) for c in self.both.crm.contacts.all()}
        own_app = {
            r["contact_id"]: self.contacts.own_app.found(r)
            for r in self.both.own_app.records("contacts")
        }
        for side, found in ((CRM, crm), (OWN_APP, own_app)):
            seen[side] = list(found)
            snapshots = {id_: one.snapshot for id_, one in found.items()}
            for record_id in two_way.find_differing(side, snapshots):
                two_way.sync(side, record_id)
        for side, record_id in find_all_unseen(two_way, seen):
            two_way.sync(side, record_id)

    def _some(self, records):
        return self.chance.choice(records) if records else None


def test_wrong_credentials_are_ours_to_mend(blocks, inbox, both):
    """A refused token dead-letters nothing silently: the error says what to do."""
    crm_block = both.crm.block(auth=ApiKeyAuth(key="wrong"))
    with open_api(crm_block) as crm_api, open_api(blocks[1]) as own_api:
        rule = ContactRule().as_conflict_rule()
        contacts = ContactSync(IdentityMap(inbox.engine, KIND), crm_api, own_api, rule)
        made = both.crm.contacts.add(ADA)
        with pytest.raises(MisconfiguredError, match="mend them in the block"):
            contacts.handle_crm_event(sample(crm_event("contact.created", made)))
