"""How far imports have come: a cursor a stream, moved on only after the sink has committed."""
