"""The logic of the tasks without Prefect."""
