"""Requests whose caller wants an answer: what they are, how they end, how the answer comes back."""
