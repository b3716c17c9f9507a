"""Runs the launcher: `python -m deployments.launcher`; see `deployments.services.launcher`."""

from __future__ import annotations

import sys

from deployments.services.launcher.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
