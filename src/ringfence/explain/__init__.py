"""Explanations of addresses: the known facts, and what would cause or end a ban.

``daemon/address_facts.py`` collects the facts of the daemon, ``offline`` those available without it; both
return ``facts.NetworkFacts``. ``forecast`` derives what would happen next, and ``as_json`` encodes
everything.
"""
