"""The detection core: turns security events into attempts, counts attempts, and decides on bans.

A rule decides on a ban if enough attempts lie within its time window. The package performs no I/O and gets
the time as an argument. ``session`` states how events become attempts, ``sender`` has the table of senders
and sessions, ``attribution`` combines the sources. ``history`` keeps the attempts within bounds, ``rules``
lists the limits (one row for each rule), ``detector`` connects the parts.
"""
