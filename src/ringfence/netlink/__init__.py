"""Netlink messages: framing, acknowledgements, NFLOG, and the list of sockets."""
