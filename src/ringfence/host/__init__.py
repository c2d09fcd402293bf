"""What this host is: its own addresses (never banned) as they change, and what Asterisk's files on it say.

pyroute2 is used here and in no other room but ``firewall``; none of its types leaves this one.
"""
