"""The state that integrations store between runs, in SQLite or PostgreSQL."""
