"""Countries and autonomous systems: their networks for the lists, and those of addresses that are shown."""
