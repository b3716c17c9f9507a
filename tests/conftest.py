"""Fixtures shared by all tests; the sandbox brings its own."""

pytest_plugins = ["deployments.sandbox.pytest_plugin"]
