"""The backend nftables: a table of our own, bans by netlink."""
