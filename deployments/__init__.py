"""What runs around the flows: gateway, launcher, sandbox, demo."""
