"""The durable inbox: every accepted delivery, and what became of it."""
