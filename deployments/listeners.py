"""Runs the listeners: `python -m deployments.listeners`; see `deployments.services.listeners`."""

from __future__ import annotations

import sys

from deployments.services.listeners.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
