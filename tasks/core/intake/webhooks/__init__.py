"""Authenticates senders of webhooks and reads their requests."""
