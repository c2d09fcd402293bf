"""What this host is, as it changes: its own addresses (which are never banned).

pyroute2 is used here and in no other room but ``firewall``; none of its types leaves this one.
"""
