"""Facts about this host: its addresses, its containers' networks, and Asterisk's files on it.

pyroute2 is used only here and in ``firewall``; none of its types leaves these packages.
"""
