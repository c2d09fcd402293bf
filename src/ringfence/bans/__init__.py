"""Bans: from decisions to bans in the kernel, and the record of them.

``enforcer`` decides, ``kernel_bans`` places and removes bans, and ``known`` has all of them: those that the
kernel confirmed (the ``ledger``), and the pending ones. The store keeps them for the next start, ``restart``.
``exemptions`` are the addresses that are not banned, ``filling`` writes the kernel's lists, ``unban`` removes
bans by command, ``reconcile`` compares the kernel with the ledger, and ``ineffective`` detects bans that do
not work.
"""
