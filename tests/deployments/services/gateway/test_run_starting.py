"""Whose callers wait gets a run at once; whatever is in the way, the event still goes out."""

from __future__ import annotations

import httpx
import pytest

from deployments.services.gateway.run_starting import PrefectRuns, replying_deployments
from sandbox.systems.scripted_api import ScriptedReply
from tasks.core.registry.declarations import read_declarations

FOUND = ScriptedReply([{"id": "d-1", "paused": False}])
NO_CONTENT = ScriptedReply(b"", status=204)


@pytest.fixture
async def prefect(scripted_api):
    """Starts runs for quotes at a Prefect that answers as the test says."""
    runs = PrefectRuns({"PREFECT_API_URL": f"{scripted_api.url}/api"}, {"quotes": "price-quote"})
    yield runs
    await runs.close()


def asked(scripted_api):
    return [request.path.removeprefix("/api/") for request in scripted_api.requests]


async def test_a_run_is_started_and_no_event_sent(prefect, scripted_api):
    """The deployment is looked up once, by its name; a run that has begun is no obstacle."""
    scripted_api.answer(
        FOUND, ScriptedReply(status=201), ScriptedReply(0), ScriptedReply(status=201)
    )
    await prefect.post("quotes")
    await prefect.post("quotes")
    start = "deployments/d-1/create_flow_run"
    assert asked(scripted_api) == ["deployments/filter", start, "flow_runs/count", start]
    assert b'"price-quote"' in scripted_api.requests[0].body


async def test_no_second_run_is_started_beside_one_that_has_not_begun(prefect, scripted_api):
    """When workers are behind, ringing again does not put them further behind."""
    scripted_api.answer(FOUND, ScriptedReply(status=201), ScriptedReply(1))
    await prefect.post("quotes")
    await prefect.post("quotes")
    assert asked(scripted_api)[2:] == ["flow_runs/count"]


async def test_other_integrations_get_their_event(prefect, scripted_api):
    """Nothing changes for whom nobody waits."""
    scripted_api.answer(NO_CONTENT)
    await prefect.post("orders")
    assert asked(scripted_api) == ["events"]


@pytest.mark.parametrize(
    "replies",
    [
        [ScriptedReply([])],
        [ScriptedReply([{"id": "d-1"}, {"id": "d-2"}])],
        [ScriptedReply([{"id": "d-1", "paused": True}])],
        [ScriptedReply(status=500)],
        [ScriptedReply("nonsense")],
        [FOUND, ScriptedReply(status=404)],
        [FOUND, ScriptedReply(status=409)],
    ],
    ids=["none", "two", "paused", "broken", "nonsense", "gone", "refused"],
)
async def test_when_no_run_can_be_started_the_event_is_sent(prefect, scripted_api, replies):
    """The automation starts one then, as for everybody else."""
    scripted_api.answer(*replies, NO_CONTENT)
    await prefect.post("quotes")
    assert asked(scripted_api)[-1] == "events"


async def test_a_deployment_that_was_made_anew_is_found(prefect, scripted_api):
    """An id that is gone is looked up again."""
    scripted_api.answer(
        FOUND, ScriptedReply(status=404), NO_CONTENT, FOUND, ScriptedReply(status=201)
    )
    await prefect.post("quotes")
    await prefect.post("quotes")
    assert asked(scripted_api)[3:] == ["deployments/filter", "deployments/d-1/create_flow_run"]


async def test_while_prefect_is_down_the_notifier_tries_on(prefect, scripted_api):
    """The error reaches the notifier, which notifies again."""
    scripted_api.answer(ScriptedReply(closes=True), ScriptedReply(closes=True))
    with pytest.raises(httpx.HTTPError):
        await prefect.post("quotes")


def test_an_endpoint_that_has_no_secret_yet_is_known(tmp_path):
    """Activation may give it one while the gateway runs: its callers get a run at once, too."""
    file = tmp_path / "integration.yaml"
    file.write_text("""
integration: shop
endpoints:
  quotes:
    path: /quotes
    scheme: api-key
    secrets: {stored: quotes}
    feeds: price-quote
    queue: shop_quotes
    request_reply: {}
  events: {path: /events, scheme: github, secrets: {env: [X]}, feeds: shop-events}
""")
    assert replying_deployments(read_declarations([file])) == {"shop_quotes": "price-quote"}
