"""Countries and autonomous systems: their networks, for the lists, and the location of shown addresses."""
