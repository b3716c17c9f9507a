"""The declarations of integrations, their activation, and their stored secrets."""
