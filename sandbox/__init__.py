"""Stand-ins of outside systems, the demo, and samples; nothing that is shipped imports it."""
