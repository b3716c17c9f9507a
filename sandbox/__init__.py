"""Stand-ins of outside systems, the demo, and samples; production code never imports it."""
