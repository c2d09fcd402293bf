"""``ringfence setup``: connects ringfence to the Asterisk of this host, proves that, and can undo it.

``find`` inspects the host. ``layouts`` and ``plan`` decide which files change. ``journal`` and ``changes``
write them so that each step can be undone. ``proof`` causes a failed login that every source must report.
"""
