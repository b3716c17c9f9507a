"""GitHub events: the branch for each type, and the flow as a whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from blocks.errors import BadPayloadError
from blocks.http_api import ApiKeyAuth, HttpApi
from flows.github_events.activities import Activity
from flows.github_events.flow import branch_by_event, github_events
from tasks.core.intake.inbox.delivery import Delivery

# Prefect's own clients leave sockets to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

SAMPLES = Path(__file__).parents[2] / "flows" / "github_events" / "samples"


def sample(event):
    return json.loads((SAMPLES / f"{event}.json").read_text())


def branch(event, **changes):
    payload = sample(event if (SAMPLES / f"{event}.json").exists() else "push")
    for path, value in changes.items():
        target = payload
        *parents, last = path.split("__")
        for part in parents:
            target = target[part]
        target[last] = value
    return branch_by_event(Delivery.sample(payload, event=event, integration="x", id="d1"))


def test_push():
    """A push becomes an activity with its commits' first lines."""
    activity = branch("push")
    assert isinstance(activity, Activity)
    assert (activity.activity_id, activity.kind, activity.actor) == ("d1", "push", "mona")
    assert activity.title == "2 commits to main of example-shop/storefront"
    assert [commit["message"] for commit in activity.data["commits"]] == [
        "Count each line of the cart once",
        "Round the total half to even",
    ]


def test_single_commit_and_tag():
    """One commit is counted in the singular."""
    commits = sample("push")["commits"][:1]
    activity = branch("push", commits=commits, ref="refs/heads/fix/cart")
    assert activity.title == "1 commit to fix/cart of example-shop/storefront"


@pytest.mark.parametrize(
    ("event", "changes", "kind"),
    [
        ("issues", {}, "issue.opened"),
        ("issues", {"action": "closed"}, "issue.closed"),
        ("pull_request", {}, "pull_request.merged"),
        ("pull_request", {"pull_request__merged": False}, "pull_request.closed"),
        ("pull_request", {"action": "opened", "pull_request__merged": None}, "pull_request.opened"),
    ],
)
def test_told(event, changes, kind):
    """Issues and pull requests become activities with number, title and link."""
    activity = branch(event, **changes)
    assert activity.kind == kind
    assert activity.title.startswith("example-shop/storefront#134")
    assert activity.url.startswith("https://github.com/example-shop/storefront/")


@pytest.mark.parametrize(
    ("event", "changes", "reason"),
    [
        ("ping", {}, "ping: the webhook is connected"),
        ("star", {}, "star: not told"),
        ("", {}, "an event without a type: not told"),
        ("issues", {"action": "labeled"}, "an issue was labeled: not told"),
        ("pull_request", {"action": "assigned"}, "a pull request was assigned: not told"),
        ("push", {"deleted": True}, "refs/heads/main was removed from example-shop/storefront"),
    ],
)
def test_ignored(event, changes, reason):
    """What the application does not show is ignored, with the reason."""
    outcome = branch(event, **changes)
    assert (outcome.status, outcome.message) == ("ignored", reason)


def test_broken_payload():
    """A payload that is not as GitHub describes it is refused, and says where."""
    with pytest.raises(BadPayloadError, match=r"repository: Input should be a valid dictionary"):
        branch("push", repository=None)


def test_flow(runs, inbox, own_app):
    """One run handles events of all types, each as a task run that says what became of it."""
    HttpApi(base_url=f"{own_app.base_url}/api/v1", auth=ApiKeyAuth(key=own_app.api_key)).save(
        "own-app", overwrite=True
    )
    ids = {
        event: inbox.deliver("github_events", sample(event), event=event)
        for event in ("push", "issues", "pull_request", "ping", "star")
    }
    state = runs.start(github_events, consumer={"idle_timeout_s": 0})
    assert (state.is_completed(), state.message) == (True, "3 done, 2 ignored")
    assert runs.tasks() == {
        f"{event} {id_}": "Ignored" if event in ("ping", "star") else "Completed"
        for event, id_ in ids.items()
    }
    kinds = {each["activity_id"]: each["kind"] for each in own_app.records("activities")}
    assert kinds == {
        ids["push"]: "push",
        ids["issues"]: "issue.opened",
        ids["pull_request"]: "pull_request.merged",
    }
    state = runs.start(github_events, payload=sample("issues"), event="issues")
    assert state.message == "sample done"
    assert len(own_app.records("activities")) == 4
