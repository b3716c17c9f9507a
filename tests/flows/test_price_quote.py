"""Quotes as a whole: caller, gateway process, inbox, Prefect server, application, third party."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from blocks.callback_signature import CallbackSignature
from blocks.http_api import ApiKeyAuth, HttpApi
from flows.callback_sending.flow import callback_sending
from flows.price_quote.flow import price_quote
from sandbox.gateway_process import running_gateway
from sandbox.systems import tax_api
from sandbox.systems.callback_receiver import CallbackReceiver
from tasks.core.intake.inbox.operations import DeliveryFilter

# Prefect's own clients leave sockets to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

FLOWS = Path(__file__).parents[2] / "flows" / "price_quote"
SAMPLE = json.loads((FLOWS / "samples" / "quote.json").read_text())
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
QUICK = {"idle_timeout_s": 0, "retry_delays_s": [], "max_attempts": 1, "concurrency": 4}
EXACT = {
    "country": "DE",
    "currency": "EUR",
    "lines": [
        {
            "sku": "widgets",
            "quantity": 3,
            "unit_price": "12.50",
            "net": "37.50",
            "in_stock": 100,
            "is_available": True,
        },
        {
            "sku": "gadgets",
            "quantity": 10,
            "unit_price": "3.20",
            "net": "32.00",
            "in_stock": 5,
            "is_available": False,
        },
    ],
    "net": "69.50",
    "tax": {"amount": "13.21", "is_estimate": False},
    "total": "82.71",
    "is_complete": True,
    "missing": [],
}


@pytest.fixture(scope="module")
def tax():
    """The third party."""
    with tax_api.start() as running:
        yield running


@pytest.fixture
def place(own_app, tax, runs, inbox):
    """Articles, stock, the blocks, a punctual third party and an empty inbox."""
    for sku, price, stock in (("widgets", "12.50", 100), ("gadgets", "3.20", 5)):
        product = {"sku": sku, "name": sku, "price": price, "currency": "EUR", "active": True}
        own_app.http.put(f"/api/v1/products/{sku}", json=product).raise_for_status()
        item = {"sku": sku, "name": sku, "quantity": stock}
        own_app.http.put(f"/api/v1/inventory/{sku}", json=item).raise_for_status()
    app = HttpApi(
        base_url=f"{own_app.base_url}/api/v1", auth=ApiKeyAuth(key=SecretStr(own_app.api_key))
    )
    app.save("own-app", overwrite=True)
    tax.block().save("tax", overwrite=True)
    CallbackSignature(secrets=[SecretStr(SECRET)]).save("quotes", overwrite=True)
    tax.faults = tax_api.TaxFaults()
    return inbox


@pytest.fixture
def caller(place, tmp_path):
    """A caller of the gateway."""
    environment = {"QUOTES_API_KEY": "key", "INTEGRATIONS_CALLBACK_NETWORKS": "127.0.0.0/8"}
    database_url = place.engine.url.render_as_string(hide_password=False)
    declared = (FLOWS / "integration.yaml").read_text()
    patient = declared.replace("deadline_s: 5", "deadline_s: 300")  # machines are shared
    assert patient != declared
    (tmp_path / "integration.yaml").write_text(patient)
    with (
        running_gateway(tmp_path, tmp_path, database_url, environment) as gateway,
        httpx.Client(base_url=gateway.url, headers={"X-API-Key": "key"}, timeout=300) as client,
    ):
        yield client


def ask(caller, inbox, runs, body=SAMPLE, *, prefer="wait=300", headers=None, **parameters):
    """Ask while the flow runs; the caller's answer and the run's state."""
    with ThreadPoolExecutor(1) as thread:
        known = len(inbox.statuses())
        asking = thread.submit(
            caller.post, "/quotes", json=body, headers={"Prefer": prefer, **(headers or {})}
        )
        while len(inbox.statuses()) == known:
            time.sleep(0.01)
        state = runs.start(price_quote, consumer=QUICK, **parameters)
        return asking.result(), state


def test_a_caller_gets_its_quote(caller, place, runs):
    """Prices, stock and tax in one answer; the request is a task run and a delivery."""
    answer, state = ask(caller, place, runs)
    assert (answer.status_code, answer.json()) == (200, EXACT)
    assert (state.is_completed(), state.message) == (True, "1 done")
    [delivery] = place.operations.select(DeliveryFilter())
    assert (delivery.integration, delivery.endpoint) == ("price_quote", "quotes")
    assert delivery.reason.startswith("answered 200 with ")
    assert list(runs.tasks().values()) == ["Completed"]


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        (
            {"when_tax_is_late": "leave out"},
            {**EXACT, "tax": None, "total": None, "is_complete": False, "missing": ["tax"]},
        ),
        (
            {"when_tax_is_late": "estimate", "estimated_tax_rates": {"DE": "0.2"}},
            {
                **EXACT,
                "tax": {"amount": "13.90", "is_estimate": True},
                "total": "83.40",
                "is_complete": False,
                "missing": ["tax"],
            },
        ),
        (
            {"when_tax_is_late": "estimate", "estimated_tax_rates": {"FR": "0.2"}},
            {**EXACT, "tax": None, "total": None, "is_complete": False, "missing": ["tax"]},
        ),
    ],
    ids=["left out", "estimated", "no rate"],
)
def test_partial_answers(tax, place, runs, parameters, expected):
    """When the third party is late, the declared policy decides what the quote says."""
    tax.faults.delay_s = 1
    state = runs.start(price_quote, payload=SAMPLE, consumer=QUICK, tax_timeout_s=0.1, **parameters)
    assert state.is_completed()
    assert shown(runs) == (200, expected)


def test_failing_is_a_policy_too(tax, place, runs):
    """The caller is told to come back, and nothing is dead-lettered: it is the declared answer."""
    tax.faults.status = 503
    state = runs.start(price_quote, payload=SAMPLE, consumer=QUICK, when_tax_is_late="fail")
    assert state.is_completed()
    status, document = shown(runs)
    assert (status, document["status"]) == (504, 504)


def shown(runs):
    """Status and JSON of the answer that a sample run shows."""
    [artifact] = runs.artifacts()
    head, _, body = artifact.data.partition("\n\n")
    return int(head.split()[0]), json.loads(body)


def test_asking_for_what_there_is_not(place, runs):
    """An unknown article is the caller's mistake, which it is told."""
    body = {"country": "DE", "lines": [{"sku": "nothing", "quantity": 1}]}
    state = runs.start(price_quote, payload=body, consumer=QUICK)
    assert state.is_completed()
    status, document = shown(runs)
    assert (status, document["sku"]) == (422, "nothing")


def test_a_request_that_breaks_its_contract(caller, place, runs):
    """422 says which fields are wrong; nobody has to look at anything."""
    answer, state = ask(caller, place, runs, {"country": "Germany", "lines": []})
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert "country" in answer.json()["detail"]
    assert "lines" in answer.json()["detail"]
    assert state.is_completed()
    assert list(place.statuses().values()) == ["ignored"]


def test_a_failure_of_ours(caller, own_app, place, runs):
    """The caller gets a problem with the run's id; the operator finds the request dead-lettered."""
    own_app.behave("error", status=500)
    answer, state = ask(caller, place, runs)
    assert (answer.status_code, answer.headers["content-type"]) == (502, "application/problem+json")
    assert answer.json()["run"] == str(runs.last)
    assert own_app.base_url not in answer.text
    assert state.is_failed()
    [delivery] = place.operations.select(DeliveryFilter())
    assert delivery.status == "dead_letter"
    assert "it answered 500" in delivery.reason


def test_a_mended_request_is_answered_after_all(caller, own_app, place, runs):
    """Retry of the failed run replaces the problem by the quote in the status resource."""
    own_app.behave("error", status=500)
    answer, _ = ask(caller, place, runs, prefer="respond-async")
    location = answer.headers["location"]
    assert caller.get(location).json()["result"]["status"] == 502
    own_app.behave("ok")
    state = runs.retry(price_quote)
    assert state.is_completed()
    assert caller.get(f"{location}/result").json() == EXACT


def test_hang_up_and_redial(caller, place, runs):
    """Who does not wait is called back, signed, with the same quote, by the same flow."""
    with CallbackReceiver(SECRET) as receiver:
        receiver.answers = [503]
        answer, _ = ask(
            caller,
            place,
            runs,
            prefer="respond-async",
            headers={"X-Callback-Url": f"{receiver.url}/quotes"},
        )
        assert answer.status_code == 202
        state = runs.start(
            callback_sending, consumer={"idle_timeout_s": 0, "retry_delays_s": [0.01]}
        )
        assert (state.is_completed(), state.message) == (True, "1 done")
        [result] = receiver.received
        assert result["type"] == "request.ended"
        assert result["data"]["body"] == EXACT
        assert result["data"]["location"] == answer.headers["location"]
        assert caller.get(f"{answer.headers['location']}/result").json() == EXACT
    assert set(place.statuses().values()) == {"done"}


@pytest.mark.parametrize("status", [404, 307, 410])
def test_callbacks_that_nobody_takes_are_dead_letters(caller, place, runs, status):
    """One that is refused, redirected or gone is dead-lettered, and replayed once it is mended."""
    with CallbackReceiver(SECRET) as receiver:
        receiver.answers = [status]
        ask(
            caller,
            place,
            runs,
            prefer="respond-async",
            headers={"X-Callback-Url": f"{receiver.url}/quotes"},
        )
        state = runs.start(callback_sending, consumer=QUICK)
        assert state.is_failed()
        assert receiver.received == []
        dead_lettered = DeliveryFilter(integration="callbacks", statuses=("dead_letter",))
        [callback] = place.operations.select(dead_lettered)
        assert str(status) in callback.reason
        place.operations.replay(dead_lettered, dry_run=False)
        assert runs.start(callback_sending, consumer=QUICK).is_completed()
        assert receiver.received[0]["data"]["body"] == EXACT


def test_the_deadline_turns_waiting_into_redialling(caller, place, runs):
    """A caller that waited in vain is called back when the run ends after all."""
    with CallbackReceiver(SECRET) as receiver:
        answer = caller.post(
            "/quotes",
            json=SAMPLE,
            headers={"Prefer": "wait=1", "X-Callback-Url": f"{receiver.url}/quotes"},
        )
        assert answer.status_code == 202
        runs.start(price_quote, consumer=QUICK)
        runs.start(callback_sending, consumer=QUICK)
        assert receiver.received[0]["data"]["body"] == EXACT


def test_steady_callers_meet_a_running_flow(caller, place, runs):
    """While a run is at work, requests are answered by it, each as a task run of its own."""
    answers = []

    def ask_one_after_the_other():
        for _ in range(5):
            answers.append(caller.post("/quotes", json=SAMPLE))

    asking = threading.Thread(target=ask_one_after_the_other)
    asking.start()
    state = runs.start(price_quote, consumer={**QUICK, "idle_timeout_s": 5})
    asking.join()
    assert [each.status_code for each in answers] == [200] * 5
    assert state.message == "5 done"
    assert list(runs.tasks().values()) == ["Completed"] * 5
