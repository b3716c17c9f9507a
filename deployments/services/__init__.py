"""What runs for long beside the Prefect server: gateway, listeners, launcher."""
