"""Notifications as values: what happened, to what, and how urgent it is."""

from collections.abc import Sequence

from attrs import frozen

from ringfence.alarm_codes import AnyAlarmCode, Mark
from ringfence.alarms import CLEARED, AlarmEvent
from ringfence.features.notify.topics import Severity, Topic
from ringfence.values.ban import COLUMNS, Ban, ban_json
from ringfence.values.network import format_network
from ringfence.values.text import rfc3339, shown

MAX_NAME = 64
MAX_TEXT = 500
"""The maximum number of characters of a text from outside, except an account name (``MAX_NAME``)."""

_ACCOUNTS = 5


@frozen
class Notification:
    """One thing that happened, at ``time`` (seconds since the epoch).

    ``name`` is the rule of a ban, the kind of a list's change, or the code of an alarm, otherwise "".
    ``subject`` is the banned or unbanned networks, the changed entries of a list, or the subject of an alarm.
    ``text`` is the reason of a ban, the result of an unban, who changed a list, or the text of an alarm. An
    attacker may have chosen parts of ``subject`` and ``text``. ``ban`` is None except for a new ban.
    """

    topic: Topic
    severity: Severity
    time: float
    name: str = ""
    subject: str = ""
    text: str = ""
    ban: Ban | None = None

    def as_json(self) -> dict[str, object]:
        """Return the notification as JSON, for the content of a message.

        Text from outside is shortened and escaped.
        """
        found: dict[str, object] = {
            "event": str(self.topic),
            "severity": str(self.severity),
            "time": rfc3339(self.time),
            "name": self.name,
            "subject": shown(self.subject, MAX_TEXT),
            "text": shown(self.text, MAX_TEXT),
        }
        if self.ban is not None:
            ban, accounts = self.ban, dict.fromkeys(attempt.account for attempt in self.ban.attempts)
            known = ban_json(ban)
            found |= {key: known[key] for key in COLUMNS} | {
                "seconds": round(ban.expires - ban.since),
                "scope": str(ban.scope),
                "attempts": ban.counts.attempts,
                "accounts": [shown(account, MAX_NAME) for account in list(accounts)[:_ACCOUNTS]],
            }
        return found


def of_ban(ban: Ban, now: float) -> Notification:
    """Return the notification of a ban that was placed at ``now`` (seconds since the epoch)."""
    subject = format_network(ban.network)
    return Notification(Topic.BAN, Severity.INFO, now, ban.rule, subject, ban.reason, ban)


def of_unban(networks: Sequence[str], ended: str, now: float) -> Notification:
    """Return the notification of an unban by a command at ``now`` (seconds since the epoch).

    ``ended`` is the result of the unban as text.
    """
    return Notification(Topic.UNBAN, Severity.INFO, now, subject=", ".join(networks), text=ended)


def of_list_change(change: str, entries: Sequence[str], who: str, now: float) -> Notification:
    """Return the notification of a change of a list, such as ``allow add``.

    ``who`` made the change at ``now`` (seconds since the epoch).
    """
    return Notification(Topic.LIST, Severity.INFO, now, change, ", ".join(entries), f"by {who}")


def of_alarm(event: AlarmEvent) -> Notification:
    """Return the notification of an alarm that began or cleared."""
    topic = Topic.CLEARED if event.change == CLEARED else Topic.ALARM
    severity = severity_of(event.code)
    return Notification(topic, severity, event.time, str(event.code), event.subject, event.text)


def severity_of(code: AnyAlarmCode) -> Severity:
    """Return how urgent an alarm with this code is."""
    if Mark.CRITICAL in code.marks:
        return Severity.CRITICAL
    return Severity.INFO if Mark.INFO in code.marks else Severity.WARNING
