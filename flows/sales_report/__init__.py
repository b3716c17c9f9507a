"""Scheduled export of the application's sales as a file, to folders, by e-mail and by SMS."""
