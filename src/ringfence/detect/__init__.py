"""The detection core: it turns events into attempts, and counts attempts in windows.

A full window leads to a ban.

It performs no I/O and gets the time as an argument. ``session`` states how events become attempts, ``sender``
has the table of senders and sessions, ``attribution`` combines the sources. ``history`` keeps the attempts
within bounds, ``rules`` lists the limits (one row for each rule), ``detector`` connects the parts.
"""
