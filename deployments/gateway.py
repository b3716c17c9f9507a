"""Runs the gateway: `python -m deployments.gateway`; see `deployments.services.gateway`."""

from __future__ import annotations

import sys

from deployments.services.gateway.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
