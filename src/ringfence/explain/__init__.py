"""Explains an address, a network or an account: the known facts, and what would cause or end a ban.

For an address or a network, ``daemon/facts.py`` collects the facts if a daemon runs, and ``offline``
those that are available without it. Both return ``facts.NetworkFacts``. ``forecast`` derives from them what
would happen next, and ``as_json`` encodes everything. For an account, these parts are
``daemon/facts.py``, ``account_offline``, ``account.AccountFacts`` and ``account_json``.

The *detector* is the part of the daemon that counts attempts and applies the rules. A *friend* is a known
phone or trunk of this PBX. No rule bans an *exempt* address. *Outage mode*: all phones fail at once, so no
rule bans known phones. The *wire* is the capture of outgoing challenges (SIP 401 and 407). An attempt is
*proven* if its source address is verified, for example by the nonce, the random text in a challenge.
"""
