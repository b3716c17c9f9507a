"""Report files: shaped rows in, one finished file out, delivered once a period and destination."""
