"""Report files: one finished file per report, delivered once per period and destination."""
