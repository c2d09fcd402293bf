"""The accounts and addresses with the most attempts, and the live display: ``ringfence top``."""

from ringfence.street import Command

COMMANDS = {
    "top": Command(
        f"{__name__}.command", "Show attempts and bans live; list the busiest accounts and addresses."
    ),
}
