"""Event-driven, several flows behind one endpoint: what Salesforce's sales people do."""
