"""The daemon: builds every part, supervises it, and answers the commands.

These words have one sense in the whole package:

- *source*: AMI, a log, the journal or the wire. In a limit of the kernel, it is a sender of packets.
- *wire*: the source that reads copies of the SIP challenges (401, 407) that leave this host.
- *friends*: the known phones and trunks of this PBX.
- *subject*: what a rule counts and bans, such as an IPv4 address or an IPv6 /64.
- *exempt* addresses are never banned.
- *proof*: how well it is known that an attempt came from its address. A *claimed* address may be forged.
- *lists* of the kernel: the networks that are allowed, the networks that are denied, and the friends.
- *sets* of the kernel: these lists and the banned addresses.
- *ledger*: the daemon's records of the active bans.
- *dry run*: the firewall backend ``memory``, which drops nothing.
"""
