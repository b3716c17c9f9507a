"""Receives webhooks: verifies, stores, then acknowledges."""
