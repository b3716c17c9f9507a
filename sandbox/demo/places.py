"""The demo's data folder, ports and environment."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).parents[2]
_DEFAULT_PORTS = {
    "prefect": 4200,
    "gateway": 8000,
    "listeners": 8090,
    "own-app": 8001,
    "dropbox": 8002,
    "s3": 9000,
    "sftp": 2222,
}


class PortTakenError(Exception):
    """Another process listens on one of our ports."""


@dataclass(frozen=True, slots=True)
class Places:
    """Directory and ports of one demo."""

    home: Path
    ports: Mapping[str, int]

    @property
    def api_url(self) -> str:
        """Prefect's API."""
        return f"http://127.0.0.1:{self.ports['prefect']}/api"

    @property
    def gateway_url(self) -> str:
        """The gateway's URL, which receives webhooks."""
        return f"http://127.0.0.1:{self.ports['gateway']}"

    @property
    def listeners_url(self) -> str:
        """The URL of the listeners' status."""
        return f"http://127.0.0.1:{self.ports['listeners']}"

    @property
    def ui_url(self) -> str:
        """Prefect's UI."""
        return f"http://127.0.0.1:{self.ports['prefect']}"

    def environment(self) -> dict[str, str]:
        """Return the environment of every process: the user's, without Prefect's, plus ours."""
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")
        }
        return inherited | self.settings()

    def settings(self) -> dict[str, str]:
        """Return the demo's own settings; their secrets are of no use elsewhere."""
        return {
            "PREFECT_HOME": str(self.home / "prefect"),
            "PREFECT_API_URL": self.api_url,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_CLI_PROMPT": "false",
            "PREFECT_CLI_COLORS": "false",
            "PREFECT_LOGGING_COLORS": "false",
            # SQLite takes one writer at a time: wait for it rather than fail
            "PREFECT_SERVER_DATABASE_TIMEOUT": "60",
            "PREFECT_SERVER_DATABASE_CONNECTION_TIMEOUT": "60",
            # else each state of each task run is recorded in a transaction of its own
            "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "200",
            "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
            "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": "200",
            "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL": "2",
            "INTEGRATIONS_DATABASE_URL": f"sqlite:///{self.home / 'state.db'}",
            "INTEGRATIONS_LISTENERS": self.listeners_url,
            # encrypts what activation agrees on with third parties; a real one is made by
            # python -m deployments.activate --make-key
            "INTEGRATIONS_SECRETS_KEY": "c2FuZGJveC1zYW5kYm94LXNhbmRib3gtc2FuZGJveCE=",
            "INTEGRATIONS_PUBLIC_URL": self.gateway_url,
            "GATEWAY_URL": self.gateway_url,  # where samples are sent
            "GITHUB_EVENTS_REPOSITORY": "example-shop/storefront",
            "SALESFORCE_ORGANIZATION_ID": "00D000000000062EAA",
            "SALESFORCE_PATH_TOKEN": "sandbox-salesforce-path",
            "SALESFORCE_USER": "integration@sandbox.example",
            # a stand-in's secrets: the sandbox's senders sign with them
            "GITHUB_WEBHOOK_SECRET": "sandbox-github-secret",
            "ORDER_EVENTS_SECRET": "whsec_c2FuZGJveC1vcmRlci1ldmVudHMtc2VjcmV0",
            "INVENTORY_WEBHOOK_SECRET": "whsec_c2FuZGJveC1pbnZlbnRvcnktc2VjcmV0",
            "ORDER_EVENTS_EXPORT_SECRET": "whsec_c2FuZGJveC1vcmRlci1ldmVudHMtZXhwb3J0LXNlY3JldA==",
            "QUOTES_API_KEY": "sandbox-quotes-key",
            "INTEGRATIONS_CALLBACK_NETWORKS": "127.0.0.0/8",
            "TICKET_ESCALATION_SECRET": "whsec_c2FuZGJveC10aWNrZXQtZXNjYWxhdGlvbi1zZWNyZXQhIQ==",
            "SUPPORT_TICKETS_SECRET": "whsec_c2FuZGJveC1zdXBwb3J0LXRpY2tldHMtc2VjcmV0ISEh",
            "PYTHONUNBUFFERED": "1",
        }


def choose_places(home: Path, *, free_ports: bool) -> Places:
    """Take the default ports, those of DEMO_PORT_<NAME>, or any free ones.

    Raises:
        PortTakenError: A requested port is taken.
    """
    ports = {}
    for name, default in _DEFAULT_PORTS.items():
        variable = f"DEMO_PORT_{name.upper().replace('-', '_')}"
        wanted = int(os.environ.get(variable, "0" if free_ports else str(default)))
        try:
            ports[name] = _free_port(wanted)
        except OSError as exc:
            raise PortTakenError(
                f"port {wanted} ({name}) is taken; stop what listens there, or choose another: "
                f"make demo {variable}={_free_port(0)}"
            ) from exc
    return Places(home, ports)


def _free_port(wanted: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", wanted))
        port: int = probe.getsockname()[1]
        return port
