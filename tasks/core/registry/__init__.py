"""What integrations declare, their activation, and the secrets that are stored for them."""
