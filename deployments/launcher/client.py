"""Starts a flow run in the launcher; see `deployments.services.launcher.client`."""

from __future__ import annotations

from deployments.services.launcher.client import main

if __name__ == "__main__":
    main()
