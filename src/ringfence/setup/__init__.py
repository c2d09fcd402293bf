"""``ringfence setup``: connects ringfence to this host's Asterisk, proves that this works, and can undo it.

``find`` inspects the host. ``layouts`` and ``plan`` decide which files change. ``journal`` and ``changes``
write them so that each step can be undone. ``proof`` causes a failed login that every source must report.

*AMI* is Asterisk's manager interface. The *manager user* is ringfence's user there, a section of
``manager.conf``. A *log channel* is a line of ``logger.conf``: a log file, and the levels of its messages.
"""
