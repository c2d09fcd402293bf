"""Explains an address, a network or an account: the known facts, and what would cause or end a ban.

For an address or a network, ``daemon/address_facts.py`` collects the facts if a daemon runs, and ``offline``
those that are available without it. Both return ``facts.NetworkFacts``. ``forecast`` derives from them what
would happen next, and ``as_json`` encodes everything. For an account, these parts are
``daemon/account_facts.py``, ``account_offline``, ``account.AccountFacts`` and ``account_json``.
"""
