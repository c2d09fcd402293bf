"""The detection core: it turns events into attempts, and counts attempts in windows.

A full window leads to a ban.

It performs no I/O and gets the time as an argument. ``fold`` turns security events into attempts, ``history``
keeps them within bounds, ``rules`` lists the limits (one row for each rule), ``detector`` connects the parts.
"""
