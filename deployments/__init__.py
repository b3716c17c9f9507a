"""What runs around the flows: gateway, launcher, listeners, and the commands that deploy."""
