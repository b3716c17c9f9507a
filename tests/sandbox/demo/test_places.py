"""The demo says which port is taken, and which would do."""

from __future__ import annotations

import re
import socket

import pytest

from sandbox.demo.places import PortTakenError, choose_places


def test_a_taken_port(monkeypatch, tmp_path):
    """The port that is proposed instead is free, also of the demo's own."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setenv("DEMO_PORT_GATEWAY", str(port))
        with pytest.raises(PortTakenError, match=rf"port {port} \(gateway\) is taken") as failed:
            choose_places(tmp_path, free_ports=True)
        proposed = re.search(r"make demo DEMO_PORT_GATEWAY=(\d+)$", str(failed.value))[1]
        assert int(proposed) > 10_000  # the demo's usual ports are below
        monkeypatch.setenv("DEMO_PORT_GATEWAY", proposed)
        assert choose_places(tmp_path, free_ports=True).gateway_url.endswith(f":{proposed}")
