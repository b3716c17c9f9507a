"""Fast starts: flow runs fork from a parent that has imported everything already."""
