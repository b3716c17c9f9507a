"""Records read from files of any supported format, validated against a declared schema."""
