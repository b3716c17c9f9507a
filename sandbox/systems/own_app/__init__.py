"""The user's own application: an HTTP API on SQLite that integrations import into and export from.

Resources are inventory, products, orders, contacts and activities, each with upsert by business
key and idempotency keys. It misbehaves on request and counts what it was asked, for tests and the
demo.
"""
