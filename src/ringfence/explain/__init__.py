"""Explains an address, a network or an account: the known facts, and what would cause or end a ban.

The facts of an address or a network are ``facts.NetworkFacts``. ``guard/facts.py`` collects them if a daemon
runs, and ``facts.facts_offline`` those that are known without it. ``as_json`` derives from them what
would happen next, and encodes everything. The facts of an account are ``account.AccountFacts``, from
the same file or ``account.account_offline``; ``account.account_document`` encodes them.

The *detector* is the part of the daemon that counts attempts and applies the rules. A *friend* is a known
phone or trunk of this PBX. No rule bans an *exempt* address. *Outage mode*: all phones fail at once, so no
rule bans known phones. The *wire* is the capture of outgoing challenges (SIP 401 and 407). An attempt is
*proven* if its source address is verified, for example by the nonce, the random text in a challenge.
"""
