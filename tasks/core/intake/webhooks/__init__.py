"""How senders of webhooks prove who they are, and what their requests say."""
