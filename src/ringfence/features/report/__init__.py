"""The report of a period: ``ringfence report``, and the weekly report by mail."""

from ringfence.street import Command

COMMANDS = {
    "report": Command(
        f"{__name__}.command", "Report what happened: attempts, who made them, bans, and broken phones."
    ),
}
