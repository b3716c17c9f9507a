"""Scheduled import of the files that partners drop on SFTP, S3, Dropbox or in a local folder."""
