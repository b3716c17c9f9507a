"""Integrations: one module or package of sibling flows each."""
