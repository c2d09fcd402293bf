"""Migration from fail2ban: its settings, its active bans, and its jails that still guard Asterisk.

``ringfence import-fail2ban`` only reads fail2ban's files and its database. It converts each option that has a
counterpart in ringfence, and reports the others. ``other_guard`` disables the jails when ringfence works.

A *jail* is a section of fail2ban's configuration: a log, and how to ban senders because of it.
"""

from ringfence.street import Command

COMMANDS = {
    "import-fail2ban": Command(
        f"{__name__}.command", "Print fail2ban's asterisk jail as a configuration, or take over its bans."
    ),
}
