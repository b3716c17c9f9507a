"""Addresses and URLs behind proxies: told by ours, forged by others."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from deployments.services.gateway.forwarding import Forwarding

PROXIES = [ip_network("10.0.0.0/8"), ip_network("::1")]


def scope(peer: str | None = "10.0.0.1", query: bytes = b"") -> dict:
    return {
        "client": (peer, 1) if peer else None,
        "scheme": "http",
        "raw_path": b"/a%2Fb",
        "query_string": query,
    }


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "caller"),
    [
        ("198.51.100.7", None, "198.51.100.7"),
        ("198.51.100.7", "203.0.113.9", "198.51.100.7"),
        ("10.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "192.0.2.1, 203.0.113.9, 10.0.0.2", "203.0.113.9"),
        ("10.0.0.1", "10.0.0.3", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.9, nonsense", None),
        ("10.0.0.1", None, None),
        ("::1", "2001:db8::1", "2001:db8::1"),
        ("::ffff:198.51.100.7", None, "198.51.100.7"),
        (None, "203.0.113.9", None),
    ],
)
def test_the_caller_is_the_last_that_is_no_proxy_of_ours(peer, forwarded_for, caller):
    """X-Forwarded-For counts from the right, through trusted proxies only."""
    headers = {} if forwarded_for is None else {"x-forwarded-for": forwarded_for}
    found = Forwarding(trusted_proxies=PROXIES).caller(scope(peer), headers)
    assert (None if found is None else str(found)) == caller


@pytest.mark.parametrize(("allowed", "expected"), [("198.51.100.0/24", True), ("::/0", False)])
def test_families_are_not_mixed(allowed, expected):
    """An IPv4 caller is in no IPv6 range."""
    is_allowed = Forwarding().is_allowed(scope("198.51.100.7"), {}, [ip_network(allowed)])
    assert is_allowed is expected


def test_nobody_is_allowed_whose_address_is_unknown():
    """With an allow-list an unknown address is refused."""
    assert not Forwarding().is_allowed(scope(None), {}, [ip_network("0.0.0.0/0")])


FORWARDED = {
    "host": "internal:8080",
    "x-forwarded-proto": "https, http",
    "x-forwarded-host": "hooks.example",
}


@pytest.mark.parametrize(
    ("forwarding", "peer", "declared", "url"),
    [
        (Forwarding(), "10.0.0.1", None, "http://internal:8080/a%2Fb?c=%20"),
        (
            Forwarding(trusted_proxies=PROXIES),
            "10.0.0.1",
            None,
            "https://hooks.example/a%2Fb?c=%20",
        ),
        (
            Forwarding(trusted_proxies=PROXIES),
            "192.0.2.1",
            None,
            "http://internal:8080/a%2Fb?c=%20",
        ),
        (
            Forwarding(public_url="https://x.example/p/"),
            None,
            None,
            "https://x.example/p/a%2Fb?c=%20",
        ),
        (Forwarding(), None, "https://y.example/z", "https://y.example/z?c=%20"),
    ],
)
def test_the_url_is_the_one_the_sender_signed(forwarding, peer, declared, url):
    """Declared, configured, told by a trusted proxy, or as requested: in this order, unchanged."""
    assert forwarding.url(scope(peer, b"c=%20"), FORWARDED, declared) == url
