"""Registers the endpoints of an integration at third parties, and knows what it registered."""
