"""The outbox of one channel: the events of the next message, and the message that is being sent.

A *digest* collects the events of the next message. Its size is bounded: it counts all events, but keeps
only the first ``KEPT`` of each topic. The message is due when one of its events has waited long enough: a
ban for the channel's setting ``digest`` (seconds), and any other event for at most ``PROMPT`` seconds. In
the channel's quiet hours the digest waits, unless it has a critical event. So does a message that failed.

One message is sent at a time, with at least ``digest`` seconds between two digests. If sending fails, it
is tried again, with growing pauses. After ``TRIES`` failures the message is dropped and counted.
Meanwhile the next digest collects events.

A weekly report is a message of its own, and no filter of the channel applies to it. If sending it fails,
other messages are sent before the next try. Perhaps the server refuses only the report, because of its
size.

``Digest``, ``Tries`` and ``Outbox`` read no clock: the argument ``now`` is in monotonic seconds.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from math import inf

from attrs import Factory, define, evolve, frozen

from ringfence.alarm_codes import Alarm
from ringfence.clock import Backoff
from ringfence.features.notify.alarms import NotifyAlarmCode
from ringfence.features.notify.notifications import Notification
from ringfence.features.notify.settings import ChannelSettings
from ringfence.features.notify.topics import Severity, Topic
from ringfence.plurals import counted
from ringfence.values.text import printable, rfc3339

KEPT = 50  # events of each topic that a digest keeps; it only counts the others
PROMPT = 5.0  # the longest wait (seconds) of an event other than a ban
TRIES = 8
FIRST_PAUSE = 10.0  # seconds after the first failure to send a message
LONGEST_PAUSE = 600.0  # seconds: each pause is twice the one before, up to this
FAILING_AFTER = 2
"""The number of failed tries in a row to send by a channel after which there is an alarm."""

OWN_ALARMS = frozenset({str(NotifyAlarmCode.NOTIFY_FAILING), str(NotifyAlarmCode.NOTIFY_DROPPED)})


class Digest:
    """Notifications for one message: all are counted, and the first ``KEPT`` of each topic are kept."""

    def __init__(self) -> None:
        self.total = 0
        self.severity = Severity.INFO
        self._counts: Counter[tuple[Topic, str]] = Counter()
        self._kept: dict[Topic, list[Notification]] = {}
        self._first = inf
        self._last = -inf

    def add(self, notification: Notification) -> None:
        """Count a notification, and keep it if there is room for one of its topic."""
        self.total += 1
        self._counts[notification.topic, notification.name] += 1
        kept = self._kept.setdefault(notification.topic, [])
        if len(kept) < KEPT:
            kept.append(notification)
        if notification.severity.rank > self.severity.rank:
            self.severity = notification.severity
        self._first = min(self._first, notification.time)
        self._last = max(self._last, notification.time)

    def as_json(self) -> dict[str, object]:
        """Return the message's content as JSON: the counts by topic and name, and the kept notifications."""
        counts: dict[str, dict[str, int]] = {}
        for (topic, name), number in self._counts.most_common():
            counts.setdefault(str(topic), {})[name] = number
        events = [one.as_json() for topic in Topic for one in self._kept.get(topic, ())]
        return {
            "severity": str(self.severity),
            "first": rfc3339(self._first),
            "last": rfc3339(self._last),
            "total": self.total,
            "counts": counts,
            "events": events,
        }


@frozen
class Waiting:
    """A message that is being sent or tried again: its content, and how many events it has (``total``).

    ``ended`` is called when a report is delivered or dropped; None for other messages. If ``is_cancelled``,
    the report is not tried again.
    """

    content: Mapping[str, object]
    total: int
    ended: Callable[[], None] | None = None
    is_cancelled: bool = False

    @property
    def is_report(self) -> bool:
        """Whether the message is a report of a week."""
        return self.ended is not None


@define
class Tries:
    """The failed attempts to send a message: their number, and the last error.

    ``next_at`` is the time of the next attempt (monotonic seconds).
    """

    failures: int = 0
    error: str = ""
    next_at: float = -inf
    _backoff: Backoff = Factory(lambda: Backoff(FIRST_PAUSE, LONGEST_PAUSE))

    def failed_with(self, error: str, now: float) -> None:
        """Record that a try to send failed because of ``error`` at ``now`` (monotonic seconds)."""
        self.failures += 1
        self.error, self.next_at = error, now + self._backoff.next()

    def hurry(self) -> None:
        """Make the next attempt due now, and let the next pause be the shortest one again."""
        self.next_at = -inf
        self._backoff.reset()


class Outbox:
    """The notifications that wait for one channel, and the message that the channel sends now."""

    def __init__(self, settings: ChannelSettings) -> None:
        self.settings = settings
        self.sent = self.failed = 0
        self.dropped_messages = self.dropped_events = 0
        """The numbers of messages, and of their events, that were dropped since the last delivery."""
        self._digest = Digest()
        self._due = inf
        self._next_message = -inf
        self._message: Waiting | None = None
        self._report: Waiting | None = None
        self._is_sending = False
        self._tries, self._report_tries = Tries(), Tries()

    def configure(self, settings: ChannelSettings, now: float) -> None:
        """Apply changed settings of the channel at ``now`` (monotonic seconds).

        Events that wait are kept. They wait for at most the new ``digest`` seconds from now. A message that
        failed is tried again at once.
        """
        if settings == self.settings:
            return
        self.settings = settings
        if self._digest.total:
            self._due = min(self._due, now + settings.digest)
        self._next_message = min(self._next_message, now + settings.digest)
        self._tries.hurry()
        self._report_tries.hurry()

    def add(self, notification: Notification, now: float) -> None:
        """Add a notification to the next message, if the channel's settings ask for it.

        ``now`` (monotonic seconds) is when its wait begins.
        """
        if not self._wants(notification):
            return
        self._digest.add(notification)
        wait = self.settings.digest if notification.topic is Topic.BAN else min(PROMPT, self.settings.digest)
        self._due = min(self._due, now + wait)

    def _wants(self, notification: Notification) -> bool:
        mine = self.settings
        if notification.topic not in mine.events or notification.severity.rank < mine.severity.rank:
            return False
        if notification.topic is Topic.BAN and mine.rules:
            return notification.name in mine.rules
        # Do not report the failure of this channel through this channel: the message would fail, too.
        return notification.name not in OWN_ALARMS or notification.subject != mine.name

    @property
    def waiting(self) -> int:
        """The number of events that are not delivered yet. A report counts as one event."""
        messages = (self._message, self._report)
        return self._digest.total + sum(message.total for message in messages if message is not None)

    @property
    def has_report(self) -> bool:
        """Whether a weekly report waits or is being sent."""
        return self._report is not None or (self._message is not None and self._message.is_report)

    def add_report(self, content: Mapping[str, object], ended: Callable[[], None]) -> None:
        """Add a weekly report; ``ended`` is called when it is delivered or dropped."""
        self._report = Waiting(content, 1, ended)

    def cancel_report(self) -> None:
        """Remove a report that waits; one that is being sent is not tried again."""
        self._report, self._report_tries = None, Tries()
        if self._message is not None and self._message.is_report:
            self._message = evolve(self._message, is_cancelled=True)

    def take(self, now: float, minute: int, *, last: bool = False) -> Mapping[str, object] | None:
        """Return the content of the message to send at ``now`` (monotonic seconds).

        Return None if none is due, or if one is being sent.
        After the attempt the caller must call :meth:`succeeded`, :meth:`failed_with` or :meth:`interrupted`.
        ``minute`` is the local time in minutes since midnight, for the quiet hours. With ``last``, everything
        that waits is due now.
        """
        if self._is_sending:
            return None
        if self._message is None:
            self._message = self._next(now, minute, last=last)
        elif not last and (now < self._tries.next_at or self._is_held(self._message, minute)):
            return None
        self._is_sending = self._message is not None
        return self._message.content if self._message is not None else None

    def _next(self, now: float, minute: int, *, last: bool) -> Waiting | None:
        """Remove and return the next digest or report if one is due, else None.

        ``now`` is in monotonic seconds; ``minute`` is that of the day, for quiet hours. ``last``: the daemon
        stops, so what waits is due. A digest begins the pause before the next one. A report that failed is
        due after its pause. Until then it delays no other message.
        """
        if self._digest.total and (last or self._is_due(now, minute)):
            self._next_message = now + self.settings.digest
            return self._close_digest()
        report = self._report
        if report is None or (now < self._report_tries.next_at and not last):
            return None
        self._report = None
        return evolve(report, content={**report.content, "dropped": self._lost()})

    def _is_due(self, now: float, minute: int) -> bool:
        if now < max(self._due, self._next_message):
            return False
        return not self._is_quiet(minute, self._digest.severity)

    def _is_held(self, message: Waiting, minute: int) -> bool:
        """Whether a message that failed waits for the end of the quiet hours. A report never does.

        A critical event waits behind it, so such an event makes it due.
        """
        if message.is_report:
            return False
        return self._is_quiet(minute, message.content["severity"], self._digest.severity)

    def _is_quiet(self, minute: int, *severities: object) -> bool:
        """Whether messages of these severities wait at this minute of the day, because of the quiet hours."""
        quiet = self.settings.quiet
        return quiet is not None and quiet.has(minute) and Severity.CRITICAL not in severities

    def _close_digest(self) -> Waiting:
        waiting = Waiting({**self._digest.as_json(), "dropped": self._lost()}, self._digest.total)
        self._digest, self._due = Digest(), inf
        return waiting

    def _lost(self) -> dict[str, int]:
        return {"messages": self.dropped_messages, "events": self.dropped_events}

    def succeeded(self) -> None:
        """Record that the message which :meth:`take` returned was delivered."""
        self.sent += 1
        if self._message is not None and self._message.ended is not None:
            self._message.ended()
            self._report_tries = Tries()
        self._tries = Tries()
        self._message, self._is_sending = None, False
        self.dropped_messages = self.dropped_events = 0

    def reached(self) -> None:
        """Record that a test message was delivered: the channel works, so what waits is tried again now."""
        if self._message is None:
            self._tries = Tries()
        self._tries.hurry()
        self._report_tries.hurry()

    def interrupted(self) -> None:
        """Record that a try to send was cancelled; the same message is sent later."""
        self._is_sending = False

    def failed_with(self, error: str, now: float) -> int:
        """Record that a try to send failed because of ``error`` at ``now`` (monotonic seconds).

        After ``TRIES`` failures, drop the message and return its number of events. Otherwise return 0.
        """
        self.failed += 1
        self._is_sending = False
        message = self._message
        if message is None:
            return 0
        tries = self._report_tries if message.is_report else self._tries
        tries.failed_with(error, now)
        if message.is_report:
            self._message = None
        if message.is_cancelled:
            return 0
        if tries.failures % TRIES:
            self._report = message if message.is_report else self._report
            return 0
        if message.ended is not None:
            message.ended()
            self._report_tries = Tries()
        self._message = None
        self.dropped_messages += 1
        self.dropped_events += message.total
        return message.total

    @property
    def error(self) -> str:
        """The last error in sending a message that is still not delivered; "" if there is none."""
        return self._tries.error or self._report_tries.error

    @property
    def alarms(self) -> list[Alarm]:
        """The present alarms about this channel."""
        name = str(self.settings.name)
        found = []
        if max(self._tries.failures, self._report_tries.failures) >= FAILING_AFTER:
            text = f"{self.settings.name} does not deliver messages: {printable(self.error)}"
            found.append(Alarm(NotifyAlarmCode.NOTIFY_FAILING, name, text))
        if self.dropped_messages:
            one = self.dropped_messages == 1
            messages = counted(self.dropped_messages, "message")
            events = counted(self.dropped_events, "event")
            text = f"{messages} with {events} {'was' if one else 'were'} dropped"
            found.append(Alarm(NotifyAlarmCode.NOTIFY_DROPPED, name, text))
        return found

    def as_json(self) -> dict[str, object]:
        """Return the channel's state as JSON values, for the status."""
        return {
            "channel": str(self.settings.name),
            "sent": self.sent,
            "failed": self.failed,
            "waiting": self.waiting,
            "dropped": self.dropped_events,
            "error": printable(self.error),
        }
