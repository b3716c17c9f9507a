"""Reports on their way to their destinations."""
