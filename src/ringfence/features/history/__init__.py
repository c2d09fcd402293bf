"""Attempts and bans over time: recorded once a minute, and shown by ``ringfence history``."""

from ringfence.street import Command

COMMANDS = {
    "history": Command(f"{__name__}.command", "Show attempts and bans over time, up to a year back."),
}
