"""The fleet: bans shared with other hosts by CrowdSec's local API.

``sync.py`` decides what to send and what to apply, without any I/O, with ``channel.py`` for the pauses.
``messages.py`` builds the requests, ``api.py`` sends them, and ``guard.py`` is the task that connects all of
them with the daemon. ``setup.py`` is the fleet's part of ``ringfence setup``; ``cscli.py`` registers this
host for it.
"""

from ringfence.street import Command

COMMANDS = {
    "fleet": Command(
        f"{__name__}.command",
        "Show and test the bans that are shared with other hosts by CrowdSec's local API.",
    ),
}
