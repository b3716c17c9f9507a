"""Secrets that third parties and we agree on at registration: encrypted, in the state database."""
