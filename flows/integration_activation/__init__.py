"""Deploy-time flows: register an integration's endpoints at third parties, and take them back."""
