"""The sandbox as pytest fixtures: each starts a stand-in on a free port of the loopback."""

from __future__ import annotations
