"""The API of own app as its clients see it, on a real socket."""

from __future__ import annotations

import threading

import httpx
import pytest

WIDGET = {
    "sku": "W-1",
    "name": "Widget",
    "quantity": 5,
    "warehouse": "A",
    "unit_price": "1.50",
    "currency": "EUR",
}
ORDER = {
    "order_no": "O-1",
    "customer": "Ann",
    "ordered_at": "2026-01-31T12:00:00+01:00",
    "status": "open",
    "total": "3.00",
    "currency": "EUR",
    "lines": [{"sku": "W-1", "quantity": 2, "unit_price": "1.50"}],
}


def post_batch(own_app, records, *, key, resource="inventory"):
    return own_app.http.post(
        f"/api/v1/{resource}/batch", json={"records": records}, headers={"Idempotency-Key": key}
    )


def as_sent(record):
    return {name: value for name, value in record.items() if name not in ("changed_at", "version")}


def test_batch_tells_new_changed_and_equal_records_apart(own_app):
    """A batch counts records as created, updated or unchanged by business key."""
    first = post_batch(own_app, [WIDGET, {**WIDGET, "sku": "W-2"}], key="1")
    assert first.json() == {"received": 2, "created": 2, "updated": 0, "unchanged": 0}
    second = post_batch(own_app, [WIDGET, {**WIDGET, "sku": "W-2", "quantity": 9}], key="2")
    assert second.json() == {"received": 2, "created": 0, "updated": 1, "unchanged": 1}


def test_last_of_two_records_with_one_key_wins(own_app):
    """A business key that comes twice in a batch ends with its last record."""
    answer = post_batch(own_app, [WIDGET, {**WIDGET, "quantity": 7}], key="1").json()
    assert answer == {"received": 2, "created": 1, "updated": 1, "unchanged": 0}
    assert [record["quantity"] for record in own_app.records("inventory")] == [7]


def test_one_invalid_record_stores_none_and_is_named(own_app):
    """Invalid records are named by index, field and reason, without their values."""
    records = [WIDGET, {**WIDGET, "sku": "W-2", "quantity": -1}, {"sku": "W-3", "secret": "x"}]
    answer = post_batch(own_app, records, key="1")
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["errors"][0] == {
        "index": 1,
        "field": "quantity",
        "reason": "Input should be greater than or equal to 0",
    }
    assert {(error["index"], error["field"]) for error in problem["errors"]} == {
        (1, "quantity"), (2, "name"), (2, "quantity"), (2, "secret"),
    }  # fmt: skip
    assert own_app.records("inventory") == []


def test_nested_field_is_named_by_its_path(own_app):
    """An invalid order line is named as lines.<position>.<field>."""
    bad = {**ORDER, "lines": [{"sku": "W-1", "quantity": 0, "unit_price": "1"}]}
    (error,) = post_batch(own_app, [bad], key="1", resource="orders").json()["errors"]
    assert (error["index"], error["field"]) == (0, "lines.0.quantity")


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"{", 400), (b"[]", 422), (b'{"records": 1}', 422), (b'{"rows": []}', 422)],
)
def test_body_that_is_no_batch_is_refused(own_app, body, status):
    """A body of another shape is refused as a whole."""
    answer = own_app.http.post(
        "/api/v1/inventory/batch", content=body, headers={"Idempotency-Key": "1"}
    )
    assert answer.status_code == status
    assert "errors" not in answer.json()


def test_repeated_request_is_answered_from_memory(own_app):
    """The same key and body get the stored answer and have no second effect."""
    first = post_batch(own_app, [WIDGET], key="1")
    own_app.http.delete("/api/v1/inventory/W-1")
    again = post_batch(own_app, [WIDGET], key="1")
    assert again.content == first.content
    assert (first.headers.get("Idempotency-Replayed"), again.headers["Idempotency-Replayed"]) == (
        None,
        "true",
    )
    assert own_app.records("inventory") == []


def test_key_of_another_body_is_refused(own_app):
    """One key for two different requests is answered with 422 and changes nothing."""
    post_batch(own_app, [WIDGET], key="1")
    answer = post_batch(own_app, [{**WIDGET, "quantity": 6}], key="1")
    assert answer.status_code == 422
    assert [record["quantity"] for record in own_app.records("inventory")] == [5]


def test_refused_batch_may_be_mended_under_its_key(own_app):
    """A refusal is not remembered: the mended batch goes in under the same key."""
    assert post_batch(own_app, [{"sku": "W-1"}], key="1").status_code == 422
    assert post_batch(own_app, [WIDGET], key="1").status_code == 200


def test_key_under_way_is_refused_for_now(own_app):
    """A second request with a key that is still under way gets 409 with Retry-After."""
    own_app.behave("slow", delay_s=0.3, remaining=1)
    answers = []
    thread = threading.Thread(target=lambda: answers.append(post_batch(own_app, [WIDGET], key="1")))
    thread.start()
    while own_app.http.get("/sandbox/behaviour").json()["remaining"]:
        pass
    second = post_batch(own_app, [WIDGET], key="1")
    thread.join()
    assert (second.status_code, second.headers["Retry-After"]) == (409, "1")
    assert answers[0].status_code == 200


def test_batch_without_key_is_refused(own_app):
    """A POST needs an Idempotency-Key."""
    answer = own_app.http.post("/api/v1/inventory/batch", json={"records": [WIDGET]})
    assert answer.status_code == 400


def test_record_is_put_read_and_deleted(own_app):
    """A record is created with 201, replaced with 200, read back, and gone after its deletion."""
    path = "/api/v1/inventory/W-1"
    assert own_app.http.put(path, json=WIDGET).status_code == 201
    replaced = own_app.http.put(path, json={**WIDGET, "quantity": 6})
    assert replaced.status_code == 200
    read = own_app.http.get(path).json()
    assert read == replaced.json()
    assert as_sent(read) == {**WIDGET, "quantity": 6}
    assert own_app.http.put(path, json=read).status_code == 200
    assert own_app.http.delete(path).status_code == 204
    assert own_app.http.delete(path).status_code == 404
    assert own_app.http.get(path).status_code == 404


def test_patch_changes_only_what_it_names(own_app):
    """A merge patch changes the given fields, removes those given as null, and keeps the rest."""
    own_app.http.put("/api/v1/orders/O-1", json=ORDER)
    path = "/api/v1/orders/O-1"
    own_app.http.patch(path, json={"external_ids": {"a": "1", "b": "2"}}).raise_for_status()
    patched = own_app.http.patch(path, json={"external_ids": {"a": None}, "status": "paid"})
    assert as_sent(patched.json()) == {**ORDER, "status": "paid", "external_ids": {"b": "2"}}
    for wrong, status in (
        ({"order_no": "O-2"}, 422),
        ({"total": 3}, 422),
        ({"planet": "Mars"}, 422),
        ([], 422),
    ):
        assert own_app.http.patch(path, json=wrong).status_code == status
    assert own_app.http.patch("/api/v1/orders/O-9", json={}).status_code == 404
    assert own_app.http.get(path).json() == patched.json()


def test_external_ids_survive_an_upsert_without_them(own_app):
    """An import that knows nothing of external ids takes none away."""
    own_app.http.put("/api/v1/orders/O-1", json={**ORDER, "external_ids": {"a": "1"}})
    post_batch(own_app, [{**ORDER, "status": "paid"}], key="1", resource="orders")
    read = own_app.http.get("/api/v1/orders/O-1").json()
    assert (read["status"], read["external_ids"]) == ("paid", {"a": "1"})


def test_version_grows_with_each_change_and_outlives_a_deletion(own_app):
    """Versions order all states of a key; what changes nothing makes no new one."""
    path = "/api/v1/inventory/W-1"
    versions = [
        own_app.http.put(path, json={**WIDGET, "quantity": quantity}).json()["version"]
        for quantity in (1, 2, 2)
    ]
    own_app.http.delete(path)
    versions.append(own_app.http.put(path, json=WIDGET).json()["version"])
    assert versions == [1, 2, 2, 4]


def test_change_of_another_version_is_refused(own_app):
    """If-Match and If-None-Match let nobody overwrite what they have not seen."""
    path = "/api/v1/inventory/W-1"
    statuses = [
        own_app.http.request(method, path, json=body, headers=headers).status_code
        for method, body, headers in (
            ("PUT", WIDGET, {"If-Match": "*"}),
            ("PUT", WIDGET, {"If-None-Match": "*"}),
            ("PUT", WIDGET, {"If-None-Match": "*"}),
            ("PATCH", {"quantity": 6}, {"If-Match": '"1"'}),
            ("PUT", WIDGET, {"If-Match": '"1"'}),
            ("DELETE", None, {"If-Match": '"1"'}),
            ("DELETE", None, {"If-Match": '"2"'}),
        )
    ]
    assert statuses == [412, 201, 412, 200, 412, 412, 204]


def test_key_in_path_may_hold_any_character(own_app):
    """A business key with a slash, a space and a letter outside ASCII works in a path."""
    record = {**WIDGET, "sku": "Ä/ 1"}
    path = "/api/v1/inventory/%C3%84%2F%201"
    assert own_app.http.put(path, json=record).status_code == 201
    assert own_app.http.get(path).json()["sku"] == "Ä/ 1"


def test_key_in_path_and_body_must_agree(own_app):
    """A record is not stored under another key than its own."""
    assert own_app.http.put("/api/v1/inventory/W-2", json=WIDGET).status_code == 422


@pytest.mark.parametrize(
    ("adjustment", "status", "quantity"),
    [
        ({"action": "add", "quantity": 20}, 200, 25),
        ({"action": "remove", "quantity": 5}, 200, 0),
        ({"action": "set", "quantity": 3}, 200, 3),
        ({"action": "remove", "quantity": 6}, 409, 5),
        ({"action": "burn", "quantity": 1}, 422, 5),
        ({"action": "add", "quantity": "1"}, 422, 5),
    ],
)
def test_adjustment_changes_the_stock(own_app, adjustment, status, quantity):
    """Stock is added, removed or set, never below zero."""
    own_app.http.put("/api/v1/inventory/W-1", json=WIDGET)
    for _ in range(2):
        answer = own_app.http.post(
            "/api/v1/inventory/W-1/adjustments", json=adjustment, headers={"Idempotency-Key": "1"}
        )
        assert answer.status_code == status
    assert own_app.http.get("/api/v1/inventory/W-1").json()["quantity"] == quantity


def test_adjustment_of_unknown_item_is_refused(own_app):
    """An item that is not there cannot be adjusted."""
    answer = own_app.http.post(
        "/api/v1/inventory/W-9/adjustments",
        json={"action": "add", "quantity": 1},
        headers={"Idempotency-Key": "1"},
    )
    assert answer.status_code == 404


def test_listing_leaves_out_what_holds_something_else(own_app):
    """A field in the query chooses records, in whatever case; it works with pages."""
    for number, name in enumerate(["Widget", "widget", "Gadget"]):
        post_batch(own_app, [{**WIDGET, "sku": f"W-{number}", "name": name}], key=f"{number}")
    page = own_app.http.get("/api/v1/inventory", params={"name": "WIDGET", "limit": 1}).json()
    assert [record["sku"] for record in page["records"]] == ["W-0"]
    page = own_app.http.get(
        "/api/v1/inventory", params={"name": "WIDGET", "cursor": page["next_cursor"]}
    ).json()
    assert [record["sku"] for record in page["records"]] == ["W-1"]


def test_listing_pages_through_everything_in_order_of_change(own_app):
    """Pages follow each other by cursor, and what changes meanwhile comes again at the end."""
    for number in range(5):
        post_batch(own_app, [{**WIDGET, "sku": f"W-{number}"}], key=f"{number}")
    first = own_app.http.get("/api/v1/inventory", params={"limit": 2}).json()
    post_batch(own_app, [{**WIDGET, "sku": "W-0", "quantity": 8}], key="again")
    rest = own_app.http.get("/api/v1/inventory", params={"cursor": first["next_cursor"]}).json()
    assert [record["sku"] for record in first["records"]] == ["W-0", "W-1"]
    assert [record["sku"] for record in rest["records"]] == ["W-2", "W-3", "W-4", "W-0"]
    assert rest["next_cursor"] is None


def test_listing_since_an_instant_is_inclusive(own_app):
    """`updated_since` gives records that changed at that instant or later."""
    post_batch(own_app, [WIDGET], key="1")
    post_batch(own_app, [{**WIDGET, "sku": "W-2"}], key="2")
    newest = own_app.records("inventory")[-1]
    found = own_app.http.get(
        "/api/v1/inventory", params={"updated_since": newest["changed_at"]}
    ).json()
    assert found["records"] == [newest]


@pytest.mark.parametrize(
    "params",
    [
        {"limit": "0"},
        {"limit": "1001"},
        {"limit": "²"},
        {"cursor": "nonsense"},
        {"cursor": "e30="},
        {"updated_since": "2026-01-01T00:00:00"},
        {"updated_since": "yesterday"},
    ],
)
def test_unusable_query_is_refused(own_app, params):
    """A parameter the listing cannot use is refused, not ignored."""
    assert own_app.http.get("/api/v1/inventory", params=params).status_code == 400


@pytest.mark.parametrize("key", ["", "wrong", "schlüssel".encode()])
def test_wrong_key_is_refused(own_app, key):
    """Without the API key there is only a 401, and nothing is said about what is stored."""
    answer = own_app.http.get("/api/v1/inventory", headers={"X-API-Key": key})
    assert answer.status_code == 401


@pytest.mark.parametrize("path", ["/api/v1/planets", "/api/v1/planets/1", "/api/v2/inventory"])
def test_unknown_resource_is_a_problem_document(own_app, path):
    """Unknown paths are answered with a problem document, too."""
    answer = own_app.http.get(path)
    assert (answer.status_code, answer.json()["status"]) == (404, 404)


def test_wrong_method_is_a_problem_document(own_app):
    """A method the route does not have is answered with 405."""
    answer = own_app.http.post("/api/v1/inventory/W-1", json={})
    assert (answer.status_code, answer.json()["title"]) == (405, "Method Not Allowed")


def test_records_survive_a_restart(tmp_path):
    """What was stored and answered is there when the application starts again."""
    from sandbox.systems.own_app.serving import running_own_app

    for replayed in (None, "true"):
        with running_own_app(tmp_path / "own_app.db") as own_app:
            answer = post_batch(own_app, [WIDGET], key="1")
            assert answer.headers.get("Idempotency-Replayed") == replayed
            assert len(own_app.records("inventory")) == 1


def test_ten_thousand_records_go_in_at_once(own_app):
    """The largest batch is taken, a larger one refused."""
    records = [{**WIDGET, "sku": f"W-{number}"} for number in range(10_001)]
    assert post_batch(own_app, records, key="1").status_code == 422
    assert post_batch(own_app, records[1:], key="1").json()["created"] == 10_000


def test_page_shows_what_is_stored(own_app):
    """The page for people shows records and requests, and no markup from records."""
    post_batch(own_app, [{**WIDGET, "name": "<script>alert(1)</script>"}], key="1")
    post_batch(own_app, [ORDER], key="2", resource="orders")
    page = httpx.get(own_app.base_url).text
    assert "&lt;script&gt;alert(1)" in page
    assert "1 lines" in page
    assert "/api/v1/orders/batch" in page
