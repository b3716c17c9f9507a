"""What the integrations remember between runs, in SQLite or PostgreSQL."""
