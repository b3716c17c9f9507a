"""The scripted API can be stopped whatever its clients do."""

from __future__ import annotations

import socket
import ssl
from contextlib import ExitStack

import httpx
import pytest

from sandbox.systems import certificate, scripted_api


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_nobody_waits_for_a_client_that_says_nothing(scheme, tmp_path):
    """Not even its handshake has begun: neither other clients nor the stop wait for that."""
    tls, trust = None, True
    if scheme == "https":
        tls = certificate.server_tls(tmp_path)
        trust = ssl.create_default_context(cafile=certificate.loopback_certificate(tmp_path)[0])
    with ExitStack() as clients:

        def served() -> int:
            """Serve clients that stay until the API has stopped, and one that speaks."""
            with scripted_api.start(tls) as api:
                url = httpx.URL(api.url)
                for said in (b"", b"\x16\x03\x01", b"GET / HTTP/1.1\r\nHost:"):
                    client = socket.create_connection((url.host, url.port))
                    clients.enter_context(client).sendall(said)
                return httpx.get(url, verify=trust, timeout=60).status_code

        assert served() > 0
