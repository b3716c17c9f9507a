"""Tables in other systems' databases: reads rows from them and writes reports to them."""
