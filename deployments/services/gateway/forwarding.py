"""Who calls and which URL they called, when proxies stand between; strangers are not believed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_FORWARDED_FOR = "x-forwarded-for"


class Forwarding:
    """What the configuration says about proxies and public URLs.

    Args:
        trusted_proxies: Whose X-Forwarded-* headers are believed.
        public_url: Origin (and path prefix) of the gateway as senders see it; None to take
            it from the request.
    """

    def __init__(
        self, *, trusted_proxies: Sequence[Network] = (), public_url: str | None = None
    ) -> None:
        self._trusted = tuple(trusted_proxies)
        self._public_url = public_url.rstrip("/") if public_url else None

    @property
    def origin(self) -> str:
        """What stands before paths that callers are told; "" if only they know."""
        return self._public_url or ""

    def is_allowed(
        self, scope: Mapping[str, Any], headers: Mapping[str, str], allowed: Sequence[Network]
    ) -> bool:
        """Whether the caller has one of the addresses."""
        caller = self.caller(scope, headers)
        return caller is not None and _is_in(caller, allowed)

    def caller(self, scope: Mapping[str, Any], headers: Mapping[str, str]) -> Address | None:
        """The address of the caller: the last that is none of our proxies."""
        peer = _peer(scope)
        if peer is None or not self._trusted or not _is_in(peer, self._trusted):
            return peer
        for text in reversed(headers.get(_FORWARDED_FOR, "").split(",")):
            hop = _address(text.strip())
            if hop is None or not _is_in(hop, self._trusted):
                return hop
        return peer

    def caller_name(self, scope: Mapping[str, Any], headers: Mapping[str, str]) -> str | None:
        """The address of the caller as text, for the log."""
        if not self._trusted:
            client = scope.get("client")
            return client[0] if client else None
        caller = self.caller(scope, headers)
        return None if caller is None else str(caller)

    def url(
        self, scope: Mapping[str, Any], headers: Mapping[str, str], public_url: str | None = None
    ) -> str:
        """The URL as the sender knows it, with its query.

        Args:
            scope: Of the ASGI request.
            headers: Names in lower case.
            public_url: The whole URL of this endpoint, if it was declared.
        """
        if public_url is None:
            origin = self._public_url or self._origin(scope, headers)
            public_url = origin + scope["raw_path"].decode("latin-1")
        query: bytes = scope["query_string"]
        return f"{public_url}?{query.decode('latin-1')}" if query else public_url

    def _origin(self, scope: Mapping[str, Any], headers: Mapping[str, str]) -> str:
        scheme, host = scope["scheme"], headers.get("host", "")
        if self._trusted and (peer := _peer(scope)) is not None and _is_in(peer, self._trusted):
            scheme = _first(headers.get("x-forwarded-proto")) or scheme
            host = _first(headers.get("x-forwarded-host")) or host
        return f"{scheme}://{host}"


def forwarded_for(pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    """All of X-Forwarded-For as one header; empty without one.

    A proxy may add a line of its own behind what a stranger sent instead of a comma.
    """
    hops = [value for name, value in pairs if name == _FORWARDED_FOR]
    return {_FORWARDED_FOR: ", ".join(hops)} if hops else {}


def _first(text: str | None) -> str:
    return text.partition(",")[0].strip() if text else ""


def _peer(scope: Mapping[str, Any]) -> Address | None:
    client = scope.get("client")
    return _address(client[0]) if client else None


@lru_cache(maxsize=4096)
def _address(text: str) -> Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    # A socket for both protocols shows IPv4 callers as ::ffff:1.2.3.4.
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address


def _is_in(address: Address, networks: Sequence[Network]) -> bool:
    return any(address.version == network.version and address in network for network in networks)
