"""Queues, topics and mailboxes behind one protocol, for listeners and scheduled imports."""
