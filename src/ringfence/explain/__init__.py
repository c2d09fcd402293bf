"""Explains an address or a network: the known facts, and what would cause or end a ban.

``daemon/address_facts.py`` collects the facts if a daemon runs, and ``offline`` those that are available
without it. Both return ``facts.NetworkFacts``. ``forecast`` derives from them what would happen next, and
``as_json`` encodes everything.
"""
