"""The report of a period: ``ringfence report``, and the weekly report by mail.

``summary`` computes the report from the daemon's answers. ``text`` writes it as text, and ``page`` as a page
of HTML, for the command and for mails. ``guard`` makes the weekly reports.
"""

from ringfence.street import Command

COMMANDS = {
    "report": Command(
        f"{__name__}.command", "Report what happened: attempts, who made them, bans, and broken phones."
    ),
}
