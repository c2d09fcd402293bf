"""What this host is: its own addresses (which are never banned) as they change, and what is said in the files
of an Asterisk on it.

pyroute2 is used here and in no other room but ``firewall``; none of its types leaves this one.
"""
