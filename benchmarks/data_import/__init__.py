"""Reads from an API side by side: a bare loop, dlt's REST client, and ours."""
