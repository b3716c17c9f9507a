"""Two-way, event-driven: contacts are the same in the CRM and in the application."""
