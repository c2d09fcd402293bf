"""Collects the daemon's notifications, and sends them by every channel.

A new event is only counted and stored, so it delays no ban. ``run`` looks once a second for messages that are
due. Each channel sends in a task of its own, one message at a time.
"""

import asyncio
import socket
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog

from ringfence.alarm_codes import Alarm
from ringfence.alarms import BEGAN, CLEARED, AlarmEvent
from ringfence.ban_facts import Placed
from ringfence.clock import Clock, until_tick
from ringfence.config.schema import Settings
from ringfence.control_server import Handler
from ringfence.errors import ControlError
from ringfence.features.notify import notifications
from ringfence.features.notify.delivery import Delivery, send
from ringfence.features.notify.notifications import Notification
from ringfence.features.notify.outbox import Outbox
from ringfence.features.notify.settings import ChannelSettings, MailSettings, NotifySettings
from ringfence.features.notify.topics import Severity, Topic
from ringfence.guard.feature import Changed, Fact, Feature, Given, Section
from ringfence.guard.request_fields import nullable, only, text
from ringfence.lists.entries import MAX_TEXT
from ringfence.lists.regions import files_of
from ringfence.plurals import counted
from ringfence.values.network import format_network, parse_network
from ringfence.values.text import rfc3339

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

_NO_CHANNEL = (
    "the configuration has none in [notify]; fix: add a channel, such as [[notify.mail]] "
    "(docs/notify.md), then: ringfence reload"
)

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
        """Return the handlers of the feature's requests on the control socket, by the request's name."""
        return {"notify_test": self._test}

    def _test(self, request: Mapping[str, Any]) -> object:
        return self.test(request.get("channel"))

    def jobs(self) -> list[Coroutine[None, None, None]]:
        """Return the coroutine that sends messages."""
        return [self._work()]

    async def _work(self) -> None:
        """Record that the daemon has started, and send messages that are due until cancelled."""
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
            if result:
                self.on_unban(["all"], f"{counted(result, 'ban')} ended")
        elif do == "unban":
            names = [format_network(parse_network(name)) for name in request["networks"]]
            # ``allowed``: the command has added the networks to the allow list just before, and this has
            # already ended their bans. So this is recorded even if the request ends no ban.
            if result["ended"] or request.get("allowed") is True:
                self.on_unban(names, "; ".join([*result["problems"], *result["notes"]]))

    def on_unban(self, networks: Sequence[str], result: str) -> None:
        """Add a notification of an unban by a command to each channel; ``result`` is the result as text."""
        self._add(notifications.of_unban(_first(networks), result, self._clock.wall()))

    def on_start(self, firewall: str) -> None:
        """Add a notification of the daemon's start to each channel; ``firewall`` is the backend's name."""
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
        """Send a test message by the channel ``wanted``, or by all channels (None).

        Return a JSON object for each one: the name ``channel``, whether it is ``ok``, and a ``text``.
        Raise ControlError if there is no such channel.
        """
        boxes = [box for box in self._outboxes if wanted in (None, box.settings.name)]
        channels = [box.settings for box in boxes]
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
        for box, task in zip(boxes, tasks, strict=True):
            if task.result().ok:
                box.reached()
        return [
            {"channel": str(channel.name), "ok": task.result().ok, "text": task.result().text}
            for channel, task in zip(channels, tasks, strict=True)
        ]

    # -- state

    def alarms(self) -> list[Alarm]:
        """Return the present alarms about channels that cannot send messages."""
        return [alarm for outbox in self._outboxes for alarm in outbox.alarms]

    def section(self) -> Section:
        """Return the state of each channel, for the status."""
        return Section(more={"notify": [outbox.as_json() for outbox in self._outboxes]})


def _first(names: Sequence[str]) -> list[str]:
    """Return the first ``MAX_NAMED`` names, and a last text with the number of the others, if any."""
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
    """Return the feature that notifies administrators; it does nothing without channels."""
    firewall = given.side.kernel.backend.name
    return Notifier(given.reloader.settings, given.side.common.clock, firewall=firewall)
