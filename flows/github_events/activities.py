"""What GitHub's events say, and the activity that the application shows for each.

Source: https://docs.github.com/en/webhooks/webhook-events-and-payloads
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, Field, StringConstraints

from tasks.deliveries import Delivery, Outcome, ignored

_SHOWN_COMMITS = 20
_TOLD_ISSUE_ACTIONS = {"opened", "closed", "reopened"}
_TOLD_PULL_ACTIONS = {"opened", "closed", "reopened", "ready_for_review"}
_FIRST_LINE = 200

Text = Annotated[str, StringConstraints(max_length=100_000)]


class Account(BaseModel):
    """A user or an app."""

    login: str


class Repository(BaseModel):
    """Where it happened."""

    full_name: str


class Event(BaseModel):
    """What all events hold."""

    repository: Repository
    sender: Account


class Commit(BaseModel):
    """One commit of a push."""

    id: str
    message: Text
    url: str
    timestamp: AwareDatetime | None = None


class Push(Event):
    """Commits were pushed, or a branch or tag made or removed."""

    ref: str
    after: str
    deleted: bool = False
    compare: str | None = None
    head_commit: Commit | None = None
    commits: list[Commit] = []


class Discussed(BaseModel):
    """What issues and pull requests have in common."""

    number: int
    title: Text
    html_url: str
    updated_at: AwareDatetime


class IssueEvent(Event):
    """Something was done with an issue."""

    action: str
    issue: Discussed


class PullRequest(Discussed):
    """A pull request, as it is after the event."""

    merged: bool | None = None


class PullRequestEvent(Event):
    """Something was done with a pull request."""

    action: str
    pull_request: PullRequest


class Activity(BaseModel):
    """One entry in the application's list of activities."""

    activity_id: str
    kind: str
    title: str
    url: str | None = None
    actor: str
    occurred_at: AwareDatetime | None = None
    data: dict[str, Any] = Field(default_factory=dict)


def activity_for_push(delivery: Delivery) -> Activity | Outcome:
    """A push of commits to a branch; what only removes a branch or tag is ignored."""
    push = delivery.parse(Push)
    if push.deleted:
        return ignored(f"{push.ref} was removed from {push.repository.full_name}")
    branch = push.ref.removeprefix("refs/heads/")
    count = len(push.commits)
    return Activity(
        activity_id=delivery.idempotency_key,
        kind="push",
        title=f"{count} commit{'' if count == 1 else 's'} to {branch} of "
        f"{push.repository.full_name}",
        url=push.compare,
        actor=push.sender.login,
        occurred_at=push.head_commit.timestamp if push.head_commit else None,
        data={
            "after": push.after,
            "commits": [
                {"id": commit.id, "message": commit.message.partition("\n")[0][:_FIRST_LINE]}
                for commit in push.commits[:_SHOWN_COMMITS]
            ],
        },
    )


def activity_for_issue(delivery: Delivery) -> Activity | Outcome:
    """An issue that was opened, closed or reopened; its other changes are ignored."""
    event = delivery.parse(IssueEvent)
    if event.action not in _TOLD_ISSUE_ACTIONS:
        return ignored(f"an issue was {event.action}: not told")
    return _about(delivery, event, f"issue.{event.action}", event.issue)


def activity_for_pull_request(delivery: Delivery) -> Activity | Outcome:
    """A pull request that was opened, merged, closed or reopened; the rest is ignored."""
    event = delivery.parse(PullRequestEvent)
    if event.action not in _TOLD_PULL_ACTIONS:
        return ignored(f"a pull request was {event.action}: not told")
    is_merge = event.action == "closed" and event.pull_request.merged
    action = "merged" if is_merge else event.action
    return _about(delivery, event, f"pull_request.{action}", event.pull_request)


def _about(delivery: Delivery, event: Event, kind: str, about: Discussed) -> Activity:
    return Activity(
        activity_id=delivery.idempotency_key,
        kind=kind,
        title=f"{event.repository.full_name}#{about.number} {about.title}"[:_FIRST_LINE],
        url=about.html_url,
        actor=event.sender.login,
        occurred_at=about.updated_at,
    )
