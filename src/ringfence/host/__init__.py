"""What this host is: its addresses (never banned), its containers' networks, what Asterisk's files on it say.

pyroute2 is used here and in no other room but ``firewall``; none of its types leaves this one.
"""
