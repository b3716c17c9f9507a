"""Event-driven import: a partner announces stock changes, the application's inventory follows."""
