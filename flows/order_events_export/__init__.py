"""Event-driven export: what happens to orders in the application, to whom it concerns outside."""
