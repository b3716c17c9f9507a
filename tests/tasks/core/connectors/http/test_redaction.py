"""Logs tell where a request went, and no secret."""

from __future__ import annotations

import logging

import httpx
import pytest

from tasks.core.connectors.http.redaction import redact_headers, redact_url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://h/a/b", "https://h/a/b"),
        ("https://bob:pw@h:8443/a?sig=zzz&page=2#frag", "https://h:8443/a?sig=***&page=***"),
        ("/a?token=x", "/a?token=***"),
        ("https://h:port/", "***"),
    ],
)
def test_urls_keep_only_where_they_lead(url, shown):
    """User, password, fragment and the values of the query are left out."""
    assert redact_url(url) == shown


def test_headers_that_speak_of_secrets_are_masked():
    """Credentials, cookies and signatures are masked; idempotency keys are not secret."""
    headers = {
        "Authorization": "Bearer x",
        "X-API-Key": "x",
        "Set-Cookie": "x",
        "X-Hub-Signature-256": "x",
        "Idempotency-Key": "batch-1",
        "Content-Type": "application/json",
    }
    assert [name for name, value in redact_headers(headers).items() if value == "***"] == [
        "Authorization", "X-API-Key", "Set-Cookie", "X-Hub-Signature-256",
    ]  # fmt: skip


def test_line_that_httpx_logs_holds_no_query(client_of, caplog):
    """What httpx itself logs of a request shows no value of the query."""
    caplog.set_level(logging.DEBUG, logger="httpx")  # other tests may have quietened it
    client_of(lambda request: httpx.Response(200)).call("GET", "/orders", params={"key": "s3cret"})
    assert "/v1/orders?key=***" in caplog.text
    assert "s3cret" not in caplog.text
