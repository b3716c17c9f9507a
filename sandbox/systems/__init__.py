"""Local stand-ins of the outside systems, each speaking its real protocol."""
