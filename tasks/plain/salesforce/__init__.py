"""What Salesforce's REST API wants to be told, beyond what any HTTP API does."""
