"""How other systems are talked to."""
