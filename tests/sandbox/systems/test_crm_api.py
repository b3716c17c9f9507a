"""The sandbox's CRM: what an integration may rely on."""

from __future__ import annotations

import threading

import pytest
from standardwebhooks import Webhook

from blocks.errors import MisconfiguredError
from blocks.http_api import NoAuth
from sandbox.systems import crm_api
from sandbox.systems.scripted_api import ScriptedReply
from tasks.api import open_api

ADA = {"display_name": "Ada Okafor", "email_address": "Ada@Example.com"}


@pytest.fixture
def http(crm):
    with crm.block().get_client() as client:
        yield client


def add(http, **fields):
    return http.post("contacts", json={"properties": ADA, **fields}).raise_for_status().json()


def test_a_contact_is_kept_in_the_crms_own_form(http):
    """E-mail addresses are kept in small letters; each property has its own change instant."""
    made = add(http)
    assert made["properties"]["email_address"] == "ada@example.com"
    path = f"contacts/{made['id']}"
    changed = http.patch(path, json={"properties": {"phone_number": "1"}}).json()
    assert changed["modified"]["phone_number"] > changed["modified"]["display_name"]
    assert (made["version"], changed["version"]) == (1, 2)
    assert http.get(path).headers["ETag"] == '"2"'


def test_a_stale_write_is_refused(http):
    """What names another version than the current one changes nothing."""
    path = f"contacts/{add(http)['id']}"
    patch = {"properties": {"phone_number": "1"}}
    assert http.patch(path, json=patch, headers={"If-Match": '"1"'}).status_code == 200
    assert http.patch(path, json=patch, headers={"If-Match": '"1"'}).status_code == 412
    assert http.delete(path, headers={"If-Match": '"1"'}).status_code == 412
    assert http.delete(path, headers={"If-Match": '"2"'}).status_code == 204
    assert http.get(path).status_code == 404


def test_an_external_id_is_unique_and_found(http):
    """A second contact with the same external id is refused, and says which one has it."""
    made = add(http, external_id="p1")
    refused = http.post("contacts", json={"properties": ADA, "external_id": "p1"})
    assert (refused.status_code, refused.json()["existing_id"]) == (409, made["id"])
    found = http.get("contacts", params={"external_id": "p1"}).json()["results"]
    assert [contact["id"] for contact in found] == [made["id"]]


def test_a_merged_contact_leads_to_the_one_that_stays(http):
    """The one that stays takes over what it does not know; the other id reads as it."""
    first, second = add(http), add(http)
    http.patch(f"contacts/{first['id']}", json={"properties": {"phone_number": "1"}})
    merged = http.post(f"contacts/{first['id']}/merge", json={"into": second["id"]}).json()
    assert merged["properties"]["phone_number"] == "1"
    assert http.get(f"contacts/{first['id']}").json()["id"] == second["id"]
    assert http.patch(f"contacts/{first['id']}", json={"properties": {}}).status_code == 404


def test_pages_and_filters(http):
    """Pages by cursor in the order of change; by instant and by e-mail address."""
    made = [add(http) for _ in range(5)]
    ids, params = [], {"limit": 2}
    while True:
        page = http.get("contacts", params=params).json()
        ids += [contact["id"] for contact in page["results"]]
        if page["paging"]["next_cursor"] is None:
            break
        params["cursor"] = page["paging"]["next_cursor"]
    assert ids == [contact["id"] for contact in made]
    since = {"updated_since": made[3]["updated_at"]}
    assert len(http.get("contacts", params=since).json()["results"]) == 2
    by_email = {"email_address": "ADA@example.com"}
    assert len(http.get("contacts", params=by_email).json()["results"]) == 5


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"properties": {"shoe_size": "44"}}, 422),
        ({"properties": {"display_name": 7}}, 422),
        ({"properties": None}, 422),
        ([], 422),
    ],
)
def test_what_is_not_understood_is_refused(http, body, status):
    """Unknown properties and wrong types make no contact."""
    assert http.post("contacts", json=body).status_code == status
    assert http.get("contacts").json()["results"] == []


def test_webhooks_are_called_signed_until_they_are_taken(crm, http, scripted_api):
    """A refused event is sent again under the same id; its secret was told at the creation."""
    taken = threading.Event()
    scripted_api.answer(
        ScriptedReply(status=503), lambda _: taken.set() or ScriptedReply(status=204)
    )
    hook = {"url": f"{scripted_api.url}/crm", "events": ["contact.created"], "description": "me"}
    made = http.post("webhooks", json=hook).json()
    assert made["secret"].startswith("whsec_")
    assert http.get("webhooks").json() == {
        "webhooks": [{key: value for key, value in made.items() if key != "secret"}]
    }
    add(http)
    assert taken.wait(20)
    first, second = scripted_api.requests
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    Webhook(made["secret"]).verify(second.body, second.headers)
    assert http.delete(f"webhooks/{made['id']}").status_code == 204


def test_everything_is_there_after_a_restart(tmp_path):
    """Contacts, merges and subscriptions are kept in the folder."""
    with crm_api.start(folder=tmp_path) as crm:
        first, second = crm.contacts.add(ADA), crm.contacts.add(ADA)
        crm.contacts.merge(first["id"], into=second["id"])
        crm.webhooks.add("http://127.0.0.1:9/", ["contact.created"])
    with crm_api.start(folder=tmp_path) as crm:
        assert crm.contacts.get(first["id"])["id"] == second["id"]
        assert crm.contacts.add(ADA)["id"] not in (first["id"], second["id"])
        assert len(crm.webhooks.all()) == 1


def test_the_token_is_needed(crm):
    """Who has no token is told nothing."""
    with open_api(crm.block(auth=NoAuth())) as api, pytest.raises(MisconfiguredError):
        api.call("GET", "contacts")
