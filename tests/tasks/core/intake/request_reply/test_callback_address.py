"""No caller can make us call our own network."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from blocks.errors import BadPayloadError, UnreachableError
from tasks.core.intake.request_reply.callback_address import check_address, is_public

PUBLIC = "93.184.216.34"


def check(url, *addresses, networks=()):
    return check_address(
        url, allowed_networks=networks, resolve=lambda _host, _port: addresses or [PUBLIC]
    )


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.8.8",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "255.255.255.255",
        "224.0.0.1",
        "198.18.0.1",
        "192.0.2.1",
        "::",
        "::1",
        "fe80::1",
        "fc00::1",
        "fec0::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "2001:db8::1",
    ],
)
def test_private_addresses(address):
    """Loopback, private, link-local, shared, multicast and reserved, also inside IPv6."""
    assert not is_public(ip_address(address))
    with pytest.raises(BadPayloadError, match="not public"):
        check("https://partner.example/x", address)


def test_public_addresses():
    """The internet at large may be called."""
    for address in (PUBLIC, "2606:2800:220:1:248:1893:25c8:1946", "64:ff9b::5db8:d822"):
        assert check("https://partner.example/x", address).address == address


def test_one_private_address_among_public_ones_suffices_for_a_refusal():
    """A name that also leads inside is not called at all."""
    with pytest.raises(BadPayloadError, match="not public"):
        check("https://partner.example/x", PUBLIC, "10.0.0.1")


@pytest.mark.parametrize(
    "url",
    [
        "http://partner.example/",
        "ftp://partner.example/",
        "file:///etc/passwd",
        "gopher://partner.example/",
        "//partner.example/",
        "partner.example",
        "https://",
        "https://user:password@partner.example/",
        "https://partner.example\\@10.0.0.1/",
        "https://partner.example/#x",
        "https://partner.example:99999/",
        "https://[::1/",
        "https://partner.example/a b",
        "https://partner.example/\r\nX: y",
        "https://pärtner.example/",
        "https://partner.example/" + "a" * 2000,
    ],
)
def test_refused_urls(url):
    """Only absolute https URLs without credentials are addresses."""
    with pytest.raises(BadPayloadError, match="refused"):
        check(url)


@pytest.mark.parametrize("host", ["127.0.0.1", "0x7f000001", "2130706433", "127.1", "[::1]"])
def test_loopback_in_any_notation(host):
    """What the machine's resolver understands as loopback is loopback."""
    with pytest.raises((BadPayloadError, UnreachableError)):
        check_address(f"https://{host}/", allowed_networks=())


def test_allowed_networks():
    """What the operator lists may be called, without TLS too; its neighbour may not."""
    networks = ["10.1.0.0/16", "fd00::/8"]
    checked = check("http://inside.example:8080/x", "10.1.2.3", networks=networks)
    assert (checked.host, checked.address, checked.port) == ("inside.example", "10.1.2.3", 8080)
    assert check("https://inside.example/", "fd00::1", networks=networks).port == 443
    with pytest.raises(BadPayloadError):
        check("https://inside.example/", "10.2.0.1", networks=networks)
    with pytest.raises(BadPayloadError, match="https"):
        check("http://partner.example/", PUBLIC, networks=networks)


def test_unknown_names():
    """A name that cannot be resolved just now may be tried again."""

    def fail(_host, _port):
        raise OSError("no such host")

    with pytest.raises(UnreachableError):
        check_address("https://nowhere.example/", allowed_networks=(), resolve=fail)
