"""The detection core: events become attempts, attempts fill windows, full windows lead to bans.

It performs no I/O and gets the time as an argument. ``fold`` turns security events into attempts, ``history``
keeps them within bounds, ``rules`` lists the limits (one row for each rule), ``detector`` connects the parts.
"""
