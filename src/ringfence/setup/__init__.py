"""``ringfence setup``: connects ringfence to the Asterisk of this host, proves it, and takes it back.

``find`` inspects the host, ``layouts`` and ``files`` decide which files change, ``journal`` and ``changes``
write them so that each step can be undone, and ``proof`` causes a failed login that every source must report.
"""
