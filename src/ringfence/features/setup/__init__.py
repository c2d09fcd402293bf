"""``ringfence setup``: connects ringfence to this host's Asterisk, proves that this works, and can undo it.

``find`` inspects the host. ``plan`` decides which files change, and ``texts`` has what they get. ``journal``
records each change, so that each step can be undone. ``proof`` causes a failed login that every source must
report.

*AMI* is Asterisk's manager interface. The *manager user* is ringfence's user there, a section of
``manager.conf``. A *log channel* is a line of ``logger.conf``: a log file, and the levels of its messages.
"""

from ringfence.street import Command

COMMANDS = {
    "setup": Command(
        f"{__name__}.command",
        "Connect ringfence to the local Asterisk, start ringfence, and test it with a harmless failed login.",
    ),
}
