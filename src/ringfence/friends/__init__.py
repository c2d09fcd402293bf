"""The friends of this PBX: learned from its Asterisks, stored, and exchanged with a second server.

A friend is a known phone or trunk of this PBX (not chan_sip's ``type=friend``). ``detect.friends`` defines
what friend status means. This package learns friends, writes them into the store, answers commands about
them, and decides whether enough is known to ban.
"""
