"""Queues, topics and mailboxes behind one protocol, for listeners and for scheduled imports."""
