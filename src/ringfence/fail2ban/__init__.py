"""Import from fail2ban: the settings of its asterisk jails, and its active bans.

The commands ``ringfence import-fail2ban`` and ``ringfence setup`` use this package. It only reads fail2ban's
files and its database. It converts each option that has a counterpart in ringfence, and reports the others.
"""
