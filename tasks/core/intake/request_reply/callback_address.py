"""Which addresses results may be sent to: the public internet by TLS, and what operators allow.

A caller who may name any address could make us call our own network for it (server-side request
forgery). So the name is resolved here, every address it has is looked at, and the connection is
made to the very address that was looked at: a name that changes in between gains nothing.

Source: OWASP Server-Side Request Forgery Prevention Cheat Sheet.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit

from blocks.errors import BadPayloadError, UnreachableError

Address = IPv4Address | IPv6Address
Resolve = Callable[[str, int], Sequence[str]]
"""Gives the addresses of a host; raises `OSError` if it has none."""

_MAX_URL_LENGTH = 2000
_PORTS = {"https": 443, "http": 80}
_NAT64 = ip_network("64:ff9b::/96")
_SYSTEM, _OPERATION = "callback", "check address"


@dataclass(frozen=True, slots=True)
class CheckedAddress:
    """An address that may be called.

    Attributes:
        url: As it was given.
        host: The name in it, which the certificate must be for.
        address: What to connect to.
        port: Where.
    """

    url: str
    host: str
    address: str
    port: int


def check_url(url: str) -> tuple[str, int]:
    """Look at the text of an address, without resolving it.

    Returns:
        Host and port.

    Raises:
        BadPayloadError: No absolute URL of HTTP, or with user and password.
    """
    if len(url) > _MAX_URL_LENGTH or not url.isascii() or not url.isprintable() or " " in url:
        raise _refused("it is no URL of at most 2000 ASCII characters")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as exc:
        raise _refused("it is no URL") from exc
    if parts.scheme not in _PORTS or not host:
        raise _refused("it must begin with https://")
    if "@" in parts.netloc or parts.fragment or "\\" in url:
        raise _refused("it must hold no user, password or fragment")
    return host, _PORTS[parts.scheme] if port is None else port


def check_address(
    url: str,
    *,
    allowed_networks: Sequence[str],
    resolve: Resolve | None = None,
) -> CheckedAddress:
    """Resolve an address and look at everything it leads to; blocks for the name server.

    Args:
        url: The address.
        allowed_networks: Networks it may lead to although they are private, and without TLS;
            CIDR.
        resolve: In place of the machine's resolver, for tests.

    Raises:
        BadPayloadError: It is no such address, or leads into a network that is not public.
        UnreachableError: Its name cannot be resolved just now.
    """
    host, port = check_url(url)
    try:
        found = list(dict.fromkeys((resolve or _resolve)(host, port)))
    except (OSError, UnicodeError) as exc:
        raise UnreachableError(
            "its name cannot be resolved; is it right?",
            system=_SYSTEM,
            operation=_OPERATION,
            record=host,
        ) from exc
    networks = [ip_network(each) for each in allowed_networks]
    for text in found:
        address = ip_address(text.partition("%")[0])
        if any(each.version == address.version and address in each for each in networks):
            continue
        if not url.lower().startswith("https:"):
            raise _refused("it must begin with https://")
        if not is_public(address):
            raise _refused(
                "it leads into a network that is not public; if that is meant, its operator "
                "lists the network in the endpoint's declaration"
            )
    return CheckedAddress(url, host, found[0], port)


def is_public(address: Address) -> bool:
    """Whether this is an address of the internet at large, in whatever notation."""
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address.teredo is not None:
            inner = address.teredo[1]
        if inner is None and address in _NAT64:
            inner = IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
        if address.is_site_local:
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def _resolve(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for _, _, _, _, address in found]


def _refused(why: str) -> BadPayloadError:
    return BadPayloadError(
        f"the callback address is refused: {why}", system=_SYSTEM, operation=_OPERATION
    )
