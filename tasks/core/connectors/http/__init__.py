"""One HTTP layer for every API: errors, retries, tokens, limits, pages, and nothing in the logs."""
