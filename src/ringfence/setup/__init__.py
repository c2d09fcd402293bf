"""``ringfence setup``: connects ringfence to this host's Asterisk, proves that this works, and can undo it.

``find`` inspects the host. ``layouts`` and ``plan`` decide which files change. ``journal`` and ``changes``
write them so that each step can be undone. ``proof`` causes a failed login that every source must report.
"""
