"""What an integration is made of, as it declares it in one file beside its flows."""
