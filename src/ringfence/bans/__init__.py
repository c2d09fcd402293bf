"""Turns decisions into bans in the kernel, and records these bans.

``enforcer`` decides which bans are placed and removed, and ``kernel_bans`` does that in the kernel. ``known``
has all bans: those that the kernel has confirmed (the ``ledger``), and the *pending* ones, which it has
refused so far. The database keeps them, so that ``restart`` can restore them at the next start.
``exemptions`` has the addresses that are not banned. ``filling`` writes the kernel's lists. ``unban`` removes
bans by command. ``reconcile`` compares the kernel with the ledger. ``ineffective`` detects bans that do not
work. ``suspects`` are addresses whose requests the kernel copies.
"""
