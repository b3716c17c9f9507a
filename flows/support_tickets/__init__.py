"""Hybrid: the application's tickets go to the helpdesk by events, the helpdesk's come by schedule.

The application decides what a ticket says, the helpdesk how far it has got and who is at it: no
field is decided by both, so nothing conflicts and nothing goes round.
"""
