"""Orders of a marketplace that has no webhooks, into the application."""
