"""The services around the flows (gateway, launcher, listeners) and the commands that deploy."""
