"""Subscribes to queues, topics and mailboxes, and stores messages before acknowledging them."""
