"""What comes in: webhooks, messages, the inbox, and replies to callers that wait."""
