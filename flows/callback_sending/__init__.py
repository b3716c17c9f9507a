"""Hang up and redial: results go to the addresses that callers left, signed and retried."""
