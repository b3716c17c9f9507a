"""Keeps records of two systems in step when people edit both."""
