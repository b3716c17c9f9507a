"""Fast starts: flow runs are forked from a parent that has already imported everything."""
