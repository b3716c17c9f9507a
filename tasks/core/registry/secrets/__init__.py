"""Secrets agreed on at registration, stored encrypted in the state database."""
