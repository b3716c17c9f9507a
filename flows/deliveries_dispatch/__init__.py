"""Pre-process flow: one endpoint for many kinds of events, each handed to the right sibling."""
