"""Event-driven import from queues, topics and mailboxes: order events into the application."""
