"""How fast listeners are, and what they lose when everything fails."""
