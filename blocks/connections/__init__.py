"""Connection settings without Prefect, shared by blocks and by processes that run without it."""
