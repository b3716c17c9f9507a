"""Event-driven export: tickets that are bugs become issues at GitHub, and follow the ticket."""
