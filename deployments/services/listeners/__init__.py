"""Subscribes to queues, topics and mailboxes, and stores what comes before it is acknowledged."""
