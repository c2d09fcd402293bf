"""Import from fail2ban: the settings of its asterisk jails, and its active bans.

Only ``import-fail2ban`` uses this. Files and database are read, never written. Options without a counterpart
are reported, and the rest is converted anyway.
"""
