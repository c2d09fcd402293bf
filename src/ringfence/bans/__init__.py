"""Turns decisions into bans in the kernel, and records these bans.

``book`` is pure: decisions and the kernel's answers go in, and changes for the kernel and facts
(``ringfence.ban_facts``) come out. It writes the ledger (``ringfence.ledger``). ``enforcer`` applies the
changes to the kernel, and the facts to the database, the listeners and the log. ``restore`` restores the bans
at the start. ``exempt`` has the networks that are not banned. ``filling`` writes the kernel's lists.
``unban`` removes bans by command. ``reconcile`` compares the kernel with the ledger.

Words of this package: the *store* is the daemon's database. The *scope* of a ban is the traffic that it drops
(:class:`~ringfence.values.ban.Scope`). The *key* of a ban is a number that encodes its network and its scope
(``ledger.key_of``). An *element* is the entry of a ban in a set of the kernel. The kernel removes it when its
*timeout* (seconds) is over. The kernel's *lists* are the allowed and denied networks and the friends. To
*adopt* a ban is to record one that was found in the kernel without a record.
"""
