"""Collects the daemon's notifications, and sends them by every channel.

A new event is only counted and stored, so it delays no ban. ``run`` looks once a second for messages that are
due. Each channel sends in a task of its own, one message at a time.
"""

import asyncio
import json
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from math import inf
from pathlib import Path
from typing import Any

import structlog
from attrs import Factory, asdict, define, evolve, frozen

from ringfence.alarm_codes import Alarm
from ringfence.alarms import BEGAN, CLEARED, AlarmEvent
from ringfence.ban_facts import Placed
from ringfence.clock import Backoff, Clock, until_tick
from ringfence.config.schema import Settings
from ringfence.control import Handler
from ringfence.errors import ControlError
from ringfence.features.notify import notifications
from ringfence.features.notify.alarms import NotifyAlarmCode
from ringfence.features.notify.notifications import Notification
from ringfence.features.notify.settings import (
    AppriseSettings,
    ChannelSettings,
    HookSettings,
    MailSettings,
    NotifySettings,
)
from ringfence.features.notify.topics import Severity, Topic
from ringfence.guard.feature import Changed, Fact, Feature, Given, Section
from ringfence.guard.request_fields import nullable, only, text
from ringfence.lists.entries import MAX_TEXT
from ringfence.lists.regions import files_of
from ringfence.plurals import counted
from ringfence.values.network import format_network, parse_network
from ringfence.values.secret import Secret
from ringfence.values.text import printable, rfc3339

# -- sends one message by a child process, so that no server and no program can delay the daemon
#
# The child (``sender``) gets the message and the settings of the channel as JSON on its standard input, so
# that no secret is in its arguments. It prints its result as JSON. It runs no program of a channel itself:
# see :mod:`ringfence.features.notify.programs`. It is killed at the end, and has none of the daemon's
# capabilities (``unprivileged``). No thread waits for the child: the event loop reads the result until the
# child closes its socket.


COMMAND = (sys.executable, "-P", "-m", "ringfence.features.notify.unprivileged")
GRACE = 5.0
"""Seconds that a child has in addition to the channel's timeout, to start and to report."""
MAX_RESULT = 64 * 1024  # bytes of the child's result
MAX_REASON = 300  # characters of the result's text, or bytes of an invalid result

_KINDS: Mapping[type[ChannelSettings], str] = {
    MailSettings: "mail",
    AppriseSettings: "apprise",
    HookSettings: "hook",
}
_REAP_EVERY = 0.05  # seconds
_REAP_FOR = 5.0  # seconds
_NO_CHANNEL = (
    "the configuration has none in [notify]; fix: add a channel, such as [[notify.mail]] "
    "(docs/notify.md), then: ringfence reload"
)


@frozen
class Delivery:
    """The result of one attempt to send: whether the channel accepted the message, and its answer."""

    ok: bool
    text: str


async def send(
    channel: ChannelSettings,
    content: Mapping[str, object],
    host: str,
    databases: tuple[Path, ...] = (),
    *,
    command: tuple[str, ...] = COMMAND,
) -> Delivery:
    """Send the message about ``content`` by ``channel``, in a child process. Raise only if cancelled.

    ``host`` is the name of this host. ``databases`` are the files from which locations are read.
    ``command`` starts the child.
    """
    request = {
        "channel": channel_as_json(channel),
        "content": content,
        "host": host,
        "databases": [str(path) for path in databases],
    }
    try:
        ours, theirs = socket.socketpair()
    except OSError as error:
        return Delivery(ok=False, text=f"no socket for the sender: {error.strerror}")
    with ours, theirs:
        ours.settimeout(0)
        try:
            process = subprocess.Popen(  # noqa: S603, ASYNC220 - starts the child fast (vfork), without waiting
                command,
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            return Delivery(ok=False, text=f"{command[0]} cannot be run: {error.strerror}")
        theirs.close()
        try:
            async with asyncio.timeout(channel.timeout + GRACE):
                answer = await _exchange(ours, json.dumps(request).encode())
        except TimeoutError:
            return Delivery(ok=False, text=f"no result within {channel.timeout:.0f} s")
        except OSError:
            answer = b""
        finally:
            with suppress(PermissionError):
                process.kill()
            await _reap(process)
    return _delivery(answer)


def channel_as_json(channel: ChannelSettings) -> dict[str, object]:
    """Return the settings of a channel for the child process, with the password in clear text."""
    values = asdict(channel, recurse=False, value_serializer=_plain)
    return {"kind": _KINDS[type(channel)], **values}


def _plain(_: object, __: object, value: Any) -> object:  # noqa: ANN401 - whatever a key has
    if isinstance(value, Secret):
        return value.reveal()
    if isinstance(value, tuple):
        return [str(one) for one in value]
    return value if value is None or isinstance(value, bool | int | float) else str(value)


async def _exchange(connection: socket.socket, request: bytes) -> bytes:
    """Send the request to the child, and return everything that it writes until it ends."""
    loop = asyncio.get_running_loop()
    with suppress(ConnectionError):  # a child that failed early may still have written the reason
        await loop.sock_sendall(connection, request)
        connection.shutdown(socket.SHUT_WR)
    answer = bytearray()
    while len(answer) <= MAX_RESULT and (part := await loop.sock_recv(connection, MAX_RESULT)):
        answer += part
    return bytes(answer)


async def _reap(process: "subprocess.Popen[bytes]") -> None:
    """Wait for the end of a killed process, for at most ``_REAP_FOR`` seconds.

    If it ends later, Python collects its exit code when it starts another process.
    """
    for _ in range(round(_REAP_FOR / _REAP_EVERY)):
        if process.poll() is not None:
            return
        await asyncio.sleep(_REAP_EVERY)


def _delivery(answer: bytes) -> Delivery:
    try:
        found = json.loads(answer)
        return Delivery(ok=found["ok"] is True, text=printable(str(found["text"])[:MAX_REASON]))
    except (ValueError, LookupError, TypeError):
        return Delivery(ok=False, text=f"the sender failed: {printable(repr(answer[:MAX_REASON]))}")


# -- the outbox of one channel: the events of the next message, and the message that is being sent
#
# A *digest* collects the events of the next message. Its size is bounded: it counts all events, but keeps
# only the first ``KEPT`` of each topic. The message is due when one of its events has waited long enough: a
# ban for the channel's setting ``digest`` (seconds), and any other event for at most ``PROMPT`` seconds. In
# the channel's quiet hours the digest waits, unless it has a critical event.
#
# One message is sent at a time, with at least ``digest`` seconds between two digests. If sending fails, it
# is tried again, with growing pauses. After ``TRIES`` failures the message is dropped and counted.
# Meanwhile the next digest collects events.
#
# A weekly report is a message of its own, and no filter of the channel applies to it. If sending it fails,
# other messages are sent before the next try. Perhaps the server refuses only the report, because of its
# size.
#
# ``Digest``, ``Tries`` and ``Outbox`` read no clock: the argument ``now`` is in monotonic seconds.


KEPT = 50  # events of each topic that a digest keeps; it only counts the others
PROMPT = 5.0  # the longest wait (seconds) of an event other than a ban
TRIES = 8
FIRST_PAUSE = 10.0  # seconds after the first failure to send a message
LONGEST_PAUSE = 600.0  # seconds: each pause is twice the one before, up to this
FAILING_AFTER = 2
"""The number of failures in a row after which the channel has an alarm."""

OWN_ALARMS = frozenset({str(NotifyAlarmCode.NOTIFY_FAILING), str(NotifyAlarmCode.NOTIFY_DROPPED)})


class Digest:
    """Events for one message: all are counted, and the first of each topic are kept."""

    def __init__(self) -> None:
        self.total = 0
        self.severity = Severity.INFO
        self._counts: Counter[tuple[Topic, str]] = Counter()
        self._kept: dict[Topic, list[Notification]] = {}
        self._first = inf
        self._last = -inf

    def add(self, notification: Notification) -> None:
        """Count an event, and keep it if there is room."""
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
        """Return the counts by topic and name, and the kept events."""
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
        """Record a failure."""
        self.failures += 1
        self.error, self.next_at = error, now + self._backoff.next()

    def hurry(self) -> None:
        """Make the next attempt due now, and let the next pause be the shortest one again."""
        self.next_at = -inf
        self._backoff.reset()


class Outbox:
    """The events and messages of one channel."""

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
        """Apply changed settings.

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
        """Add an event to the next message, if the channel's settings ask for it."""
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
        """Return the content of the message to send now; None if none is due, or one is being sent.

        After the attempt the caller must call :meth:`succeeded`, :meth:`failed_with` or :meth:`interrupted`.
        ``minute`` is the local time in minutes since midnight, for the quiet hours. With ``last``, everything
        that waits is due now.
        """
        if self._is_sending:
            return None
        if self._message is None:
            self._message = self._next(now, minute, last=last)
        elif now < self._tries.next_at and not last:
            return None
        self._is_sending = self._message is not None
        return self._message.content if self._message is not None else None

    def _next(self, now: float, minute: int, *, last: bool) -> Waiting | None:
        """Return the next digest or report if one is due, else None.

        A report that failed is due after its pause. Until then it delays no other message.
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
        quiet = self.settings.quiet
        return quiet is None or not quiet.has(minute) or self._digest.severity is Severity.CRITICAL

    def _close_digest(self) -> Waiting:
        waiting = Waiting({**self._digest.as_json(), "dropped": self._lost()}, self._digest.total)
        self._digest, self._due = Digest(), inf
        return waiting

    def _lost(self) -> dict[str, int]:
        return {"messages": self.dropped_messages, "events": self.dropped_events}

    def succeeded(self) -> None:
        """Record that the message was delivered."""
        self.sent += 1
        if self._message is not None and self._message.ended is not None:
            self._message.ended()
            self._report_tries = Tries()
        else:
            self._tries = Tries()
        self._message, self._is_sending = None, False
        self.dropped_messages = self.dropped_events = 0

    def interrupted(self) -> None:
        """Record that an attempt to send was cancelled; the message is sent again."""
        self._is_sending = False

    def failed_with(self, error: str, now: float) -> int:
        """Record that an attempt to send failed because of ``error``.

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
        """Return the channel's state, for ``status``."""
        return {
            "channel": str(self.settings.name),
            "sent": self.sent,
            "failed": self.failed,
            "waiting": self.waiting,
            "dropped": self.dropped_events,
            "error": printable(self.error),
        }


LOOK_EVERY = 1.0
STOP_PATIENCE = 5.0
"""Seconds that the daemon's stop waits for the last messages."""

LAST_PATIENCE = 1.0
"""The least time (seconds) for the message about the daemon's stop, even if ``STOP_PATIENCE`` is over."""

MAX_NAMED = 10
"""The maximum number of networks or entries that a notification names."""

Send = Callable[
    [ChannelSettings, Mapping[str, object], str, tuple[Path, ...]],
    Coroutine[None, None, Delivery],
]


REQUESTS = {"notify_test": only({"channel": nullable(text(MAX_TEXT))}, records=False)}
_LIST_CHANGES = frozenset({"allow_add", "allow_remove", "deny_add", "deny_remove"})


class Notifier(Feature):
    """Collects and sends the events for each channel. ``firewall`` is the name of the firewall's backend."""

    def __init__(self, settings: Settings, clock: Clock, sender: Send = send, firewall: str = "") -> None:
        self._clock = clock
        self._firewall = firewall
        self._send = sender
        self._host = socket.gethostname()
        self._outboxes: list[Outbox] = []
        self._job: asyncio.Task[None] | None = None
        self._stop_by: float | None = None
        self._log = structlog.get_logger()
        self.configure(settings)

    def handlers(self) -> Mapping[str, Handler]:
        """Return the handler of each request."""
        return {"notify_test": lambda request: self.test(request.get("channel"))}

    def jobs(self) -> list[Coroutine[None, None, None]]:
        """Return the coroutine that sends messages."""
        return [self._work()]

    async def _work(self) -> None:
        """Record that the daemon has started, and send messages."""
        self._job = asyncio.current_task()
        self.on_start(self._firewall)
        await self.run()

    def configure(self, settings: Settings) -> None:
        """Apply a new configuration.

        A channel that keeps its name keeps its waiting events. The events of a removed channel are dropped
        and logged.
        """
        mine = settings.of(NotifySettings)
        channels = mine.channels
        before = {outbox.settings.name: outbox for outbox in self._outboxes}
        self._databases = files_of(settings)
        self._sends_reports = mine.report is not None
        self._outboxes = [before.pop(one.name) if one.name in before else Outbox(one) for one in channels]
        for outbox, channel in zip(self._outboxes, channels, strict=True):
            outbox.configure(channel, self._clock.mono())
            if channel.name not in self.report_channels():
                outbox.cancel_report()
        self._log_dropped(before.values())

    # -- events

    def on_fact(self, fact: Fact) -> None:
        """Record new bans, alarms and changes by commands, and apply a new configuration."""
        match fact:
            case Settings():
                self.configure(fact)
            case Placed(announced=True) if self._outboxes:
                now = self._clock.wall()
                for ban in fact.bans:
                    self._add(notifications.of_ban(ban, now))
            case AlarmEvent() if fact.change in (BEGAN, CLEARED):
                self._add(notifications.of_alarm(fact))
            case Changed():
                self._on_change(fact)

    def _on_change(self, change: Changed) -> None:
        """Record an unban or a change of a list, if it has changed something."""
        do, request, result = change.do, change.request, change.result
        if do in _LIST_CHANGES and result["done"]:
            what, entries = do.replace("_", " "), _first(result["done"])
            self._add(notifications.of_list_change(what, entries, change.who, self._clock.wall()))
        elif do == "unban" and request.get("all") is True:
            self.on_unban(["all"], f"{counted(result, 'ban')} ended")
        elif do == "unban":
            names = [format_network(parse_network(name)) for name in request["networks"]]
            # ``allowed``: the command has added the networks to the allow list just before, and this has
            # already ended their bans. So this is recorded even if the request ends no ban.
            ended = len(result["problems"]) + len(result["not_banned"]) < len(names)
            if ended or request.get("allowed") is True:
                self.on_unban(names, "; ".join([*result["problems"], *result["notes"]]))

    def on_unban(self, networks: Sequence[str], result: str) -> None:
        """Record an unban by a command; ``result`` is its result as text."""
        self._add(notifications.of_unban(_first(networks), result, self._clock.wall()))

    def on_start(self, firewall: str) -> None:
        """Record that the daemon has started; ``firewall`` is the name of its backend."""
        self._add(Notification(Topic.START, Severity.INFO, self._clock.wall(), text=f"firewall: {firewall}"))

    def _add(self, notification: Notification) -> None:
        now = self._clock.mono()
        for outbox in self._outboxes:
            outbox.add(notification, now)

    # -- reports

    def report_channels(self) -> list[str]:
        """Return the names of all mail channels; [] if the configuration does not ask for reports."""
        if not self._sends_reports:
            return []
        return [box.settings.name for box in self._outboxes if isinstance(box.settings, MailSettings)]

    def has_report(self, name: str) -> bool:
        """Whether the channel ``name`` has a report that it has neither delivered nor dropped yet."""
        return any(box.has_report for box in self._outboxes if box.settings.name == name)

    def on_report(self, name: str, report: Mapping[str, object], ended: Callable[[], None]) -> None:
        """Send a report by the channel ``name``; ``ended`` is called when it is delivered or dropped.

        Do nothing if a reload has removed the channel, or switched reports off, while the report was made.
        """
        moment = rfc3339(self._clock.wall())
        head = {"severity": str(Severity.INFO), "first": moment, "last": moment, "total": 1}
        content = {**head, "counts": {"report": {"": 1}}, "events": [], "report": report}
        for outbox in self._outboxes:
            if outbox.settings.name == name and name in self.report_channels():
                outbox.add_report(content, ended)

    # -- sending

    async def run(self) -> None:
        """Send messages that are due, until cancelled.

        When cancelled, wait at most ``STOP_PATIENCE`` seconds for the messages that are being sent.
        """
        sending: set[asyncio.Task[bool]] = set()
        async with asyncio.TaskGroup() as group:
            try:
                while True:
                    await asyncio.sleep(until_tick(LOOK_EVERY))
                    for outbox, content in self._due():
                        task = group.create_task(self._deliver(outbox, content))
                        sending.add(task)
                        task.add_done_callback(sending.discard)
            except asyncio.CancelledError:
                self._stop_by = self._clock.mono() + STOP_PATIENCE
                if sending:
                    await asyncio.wait(sending, timeout=STOP_PATIENCE)
                raise

    def _due(self) -> Iterator[tuple[Outbox, Mapping[str, object]]]:
        minute = _minute(self._clock.wall())
        for outbox in self._outboxes:
            if (content := outbox.take(self._clock.mono(), minute)) is not None:
                yield outbox, content

    async def stop(self) -> None:
        """End :meth:`run`, record the daemon's stop, and send all waiting events.

        Give up ``STOP_PATIENCE`` seconds after :meth:`run` was cancelled, but not before ``LAST_PATIENCE``
        seconds have passed since its end. Then log how many events were not sent.
        """
        if self._job is not None:
            self._job.cancel()
            await asyncio.wait([self._job])
        text = "bans stay in place"
        self._add(Notification(Topic.STOP, Severity.INFO, self._clock.wall(), text=text))
        left = STOP_PATIENCE if self._stop_by is None else self._stop_by - self._clock.mono()
        with suppress(TimeoutError):
            async with asyncio.timeout(max(left, LAST_PATIENCE)), asyncio.TaskGroup() as group:
                for outbox in self._outboxes:
                    group.create_task(self._empty(outbox))
        self._log_dropped(self._outboxes)

    def _log_dropped(self, outboxes: Iterable[Outbox]) -> None:
        """Log, for each outbox, how many waiting events will not be sent.

        A report is not counted: it is not lost, because the next start makes it again.
        """
        for outbox in outboxes:
            if dropped := outbox.waiting - outbox.has_report:
                self._log.error("notify.dropped", channel=outbox.settings.name, events=dropped)

    async def _empty(self, outbox: Outbox) -> None:
        """Send the events of an outbox, until it is empty or an attempt fails."""
        while (content := outbox.take(self._clock.mono(), 0, last=True)) is not None:
            if not await self._deliver(outbox, content):
                return

    async def _deliver(self, outbox: Outbox, content: Mapping[str, object]) -> bool:
        """Send a message, and record the result in its outbox; return whether it was delivered."""
        name = outbox.settings.name
        try:
            delivery = await self._send(outbox.settings, content, self._host, self._databases)
        except asyncio.CancelledError:
            outbox.interrupted()
            raise
        if delivery.ok:
            outbox.succeeded()
            self._log.info("notify.sent", channel=name, events=content["total"], answer=delivery.text)
            return True
        self._log.warning("notify.failed", channel=name, events=content["total"], error=delivery.text)
        if dropped := outbox.failed_with(delivery.text, self._clock.mono()):
            self._log.error("notify.dropped", channel=name, events=dropped)
        return False

    async def test(self, wanted: str | None) -> list[dict[str, object]]:
        """Send a test message by the channel ``wanted``, or by all channels (None); return the results.

        Raise ControlError if there is no such channel.
        """
        channels = [box.settings for box in self._outboxes if wanted in (None, box.settings.name)]
        if not channels:
            names = ", ".join(box.settings.name for box in self._outboxes)
            there = f"the channels are: {names}" if names else _NO_CHANNEL
            raise ControlError(f"there is no channel {wanted}; {there}" if wanted else there)
        content = _test_content(self._clock.wall())
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._send(channel, content, self._host, self._databases))
                for channel in channels
            ]
        return [
            {"channel": str(channel.name), "ok": task.result().ok, "text": task.result().text}
            for channel, task in zip(channels, tasks, strict=True)
        ]

    # -- state

    def alarms(self) -> list[Alarm]:
        """Return the present alarms about the channels."""
        return [alarm for outbox in self._outboxes for alarm in outbox.alarms]

    def section(self) -> Section:
        """Return the state of each channel."""
        return Section(more={"notify": [outbox.as_json() for outbox in self._outboxes]})


def _first(names: Sequence[str]) -> list[str]:
    """Return the first names, and the number of the others."""
    more = [f"and {len(names) - MAX_NAMED} more"] if len(names) > MAX_NAMED else []
    return [*names[:MAX_NAMED], *more]


def _minute(wall: float) -> int:
    local = time.localtime(wall)
    return local.tm_hour * 60 + local.tm_min


def _test_content(wall: float) -> dict[str, object]:
    moment = rfc3339(wall)
    event = {"event": "test", "severity": "info", "time": moment, "name": "", "subject": "", "text": _TEST}
    head = {"severity": "info", "first": moment, "last": moment, "total": 1, "counts": {"test": {"": 1}}}
    return {**head, "events": [event]}


_TEST = "somebody ran: ringfence notify test"


def build(given: Given) -> Notifier:
    """Return the notifier, with or without channels."""
    firewall = given.side.kernel.backend.name
    return Notifier(given.reloader.settings, given.side.common.clock, firewall=firewall)
