"""Synchronous integration: a caller asks for a price and waits; a slow third party is behind it."""
