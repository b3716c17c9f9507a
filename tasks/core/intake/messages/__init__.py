"""Messages of queues and mailboxes on their way into the inbox."""
