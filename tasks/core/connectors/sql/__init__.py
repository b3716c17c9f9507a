"""Tables of other systems' databases: rows taken from them, and reports written to them."""
