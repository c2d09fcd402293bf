"""The nftables backend: a table of our own, and bans that are added by netlink."""
