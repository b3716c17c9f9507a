"""Event-driven import, one flow branching by event type: what happens in GitHub repositories."""
