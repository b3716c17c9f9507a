"""Stand-ins whose ids outlive them: an id never means another record after a restart."""

from __future__ import annotations

from sandbox.systems import helpdesk_api
from sandbox.systems.github_issues import GithubIssues


def test_helpdesk_goes_on_with_its_tickets(tmp_path):
    """Tickets are there again, and new ones get new ids."""
    file = tmp_path / "helpdesk.json"
    with helpdesk_api.start(file=file) as helpdesk:
        first = helpdesk.add(subject="A")
    with helpdesk_api.start(file=file) as helpdesk:
        assert helpdesk.tickets == {7001: first}
        assert helpdesk.add(subject="B")["id"] == 7002


def test_github_goes_on_with_its_issues(tmp_path):
    """Issues are there again."""
    issues = GithubIssues("a/b")
    issues.cache_in(tmp_path / "issues.json")
    issues._write(issues._created, {"title": "A"})
    again = GithubIssues("a/b")
    again.cache_in(tmp_path / "issues.json")
    assert again.issues == issues.issues
