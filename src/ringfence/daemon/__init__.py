"""The daemon: builds every part, supervises it, and answers the commands.

These words have one sense in the whole package. The *wire* is the source that reads copies of the SIP
challenges (401, 407) that leave this host. *Friends* are the known phones and trunks of this PBX. A *subject*
is what a rule counts and bans, such as an IPv4 address or an IPv6 /64. *Exempt* addresses are never banned.
The *limiter* is the firewall's limit on the packets of each source. The *ledger* has the daemon's records of
the active bans.
"""
