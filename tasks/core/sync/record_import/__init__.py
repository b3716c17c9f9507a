"""Records that come one by one, in rows and messages: checked, sent, and told when they are bad."""
