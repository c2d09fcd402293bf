"""Notifications: their topics, how urgent they are, and when none is sent."""

import enum

from attrs import frozen


class Topic(enum.StrEnum):
    """The topic of a notification.

    ``UNBAN`` is an unban by a command, not the end of a ban. ``LIST`` is a change of the allow list or the
    deny list. ``CLEARED`` is the end of an alarm.
    """

    BAN = "ban"
    UNBAN = "unban"
    LIST = "list"
    ALARM = "alarm"
    CLEARED = "cleared"
    START = "start"
    STOP = "stop"


class Severity(enum.StrEnum):
    """How urgent a notification is, the least urgent first."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """How urgent this severity is, as a number: 0 is the least urgent."""
        return _RANKS[self]


_RANKS = {severity: rank for rank, severity in enumerate(Severity)}


@frozen
class QuietHours:
    """A time of every day: its start and end in minutes since midnight, in the host's time zone.

    It may span midnight.
    """

    start: int
    end: int

    def has(self, minute: int) -> bool:
        """Whether a minute of the day, counted from midnight, is in the quiet hours."""
        if self.start < self.end:
            return self.start <= minute < self.end
        return minute >= self.start or minute < self.end

    def __str__(self) -> str:
        return "-".join(f"{at // 60:02}:{at % 60:02}" for at in (self.start, self.end))
