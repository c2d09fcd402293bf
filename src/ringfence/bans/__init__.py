"""Bans: from decisions to bans in the kernel, and the record of them.

``enforcer`` places and removes bans. The ``ledger`` is what it knows of them; the store keeps them for the
next start. ``exemptions`` are the addresses that are not banned, ``unban`` removes bans by command,
``reconcile`` compares the kernel with the ledger, and ``ineffective`` detects bans that do not work.
"""
