"""One HTTP layer for every API: errors, retries, tokens, limits, pages, no secrets in logs."""
