"""The friends of this PBX: learned from its Asterisks, stored, and exchanged with a second server.

A friend is a known phone or trunk of this PBX (not chan_sip's ``type=friend``). ``detect.friends`` defines
what friend status means. This package learns friends, writes them into the store (the daemon's database),
answers commands about them, and decides whether enough is known to ban.

A *reason* is one reason why an address is a friend: a login, a contact, a trunk, or an import. A *contact* is
the location of a phone as Asterisk reports it. A *trunk* is a server at which the PBX registers. A *roster*
is the list of all contacts and trunks of one Asterisk.
"""
