"""Import from fail2ban: the settings of its asterisk jails, and its active bans.

The commands ``ringfence import-fail2ban`` and ``ringfence setup`` use it. fail2ban's files and its database
are only read. Options without a counterpart in ringfence are reported, and the others are converted.
"""
