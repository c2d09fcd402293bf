"""Facts about this host: its addresses and connections, its containers' networks, and Asterisk's files.

pyroute2 is used only in this package, and no other package sees its types.
"""
