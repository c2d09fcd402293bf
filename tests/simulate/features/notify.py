"""Notifications in a story: a channel that refuses messages, hangs, or accepts them and loses the answer.

No child process sends them: the channel is a function.
"""
# ruff: noqa: ANN401 - a replaced function may be any

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from tests.judge.oracle import Violation
from tests.simulate.feature import Feature, Replaced, Stage
from tests.simulate.loop import Schedule
from tests.simulate.put_back import GUESS, Row, does_nothing, guesses
from tests.simulate.step import Kinds, Step, times

from ringfence.alarms import BEGAN, CLEARED, AlarmEvent
from ringfence.ban_facts import Placed
from ringfence.features.notify import guard as notify
from ringfence.features.notify.delivery import GRACE, Delivery
from ringfence.features.notify.notifications import MAX_TEXT
from ringfence.features.notify.outbox import FIRST_PAUSE, LONGEST_PAUSE, TRIES
from ringfence.features.notify.settings import ChannelSettings
from ringfence.guard.feature import Given
from ringfence.values.network import format_network
from ringfence.values.text import shown

ANSWERS_WITHIN = 0.3
"""Seconds in which the channel answers, unless it hangs.

A stop may have one second left for two messages (``LAST_PATIENCE`` of ``features/notify/guard.py``).
"""
SENT_WITHIN = 20.0
"""Seconds after which the channel has an event, if no message fails: the event waits five seconds."""

_TOPICS = {BEGAN: "alarm", CLEARED: "cleared"}
_OWN = "notify."
"""How the codes of the alarms begin that the channel does not send: they are about the channel."""
_BUILD = notify.build

_NOTIFY = "ringfence.features.notify"
_BANNED = (Step("notify", wait=0.0), *guesses(GUESS))
"""A ban that waits in the channel's next message, together with the start."""


def _drops_at_once(right: Any) -> Any:
    def failed_with(self: Any, error: str, now: float) -> Any:
        dropped = right(self, error, now)
        self._message = None
        return dropped

    return failed_with


def _forgets_waiting(right: Any) -> Any:
    def configure(self: Any, settings: Any) -> None:
        self._outboxes = []
        right(self, settings)

    return configure


_FAULTS: Sequence[Row] = (
    (
        "a message that is refused",
        "It was dropped, and not sent again.",
        f"{_NOTIFY}.outbox:Outbox.failed_with",
        _drops_at_once,
        "M",
        [*_BANNED, Step("mail fails", wait=0.0, number=1), Step("rotate", wait=8.0)],
    ),
    (
        "a stop while a channel hangs",
        "The message that was being sent kept back all that waited, also the stop itself.",
        f"{_NOTIFY}.outbox:Outbox.interrupted",
        does_nothing,
        "M",
        [*_BANNED, Step("mail hangs", wait=0.0, number=1), Step("stop", wait=8.0, seconds=0.1)],
    ),
    (
        "a reload while events wait",
        "The channel forgot the events that it had not sent yet.",
        f"{_NOTIFY}.guard:Notifier.configure",
        _forgets_waiting,
        "M",
        [*_BANNED, Step("reload", wait=0.5)],
    ),
)

Event = tuple[str, str, str]
"""An event of a message: its topic, its name, and its subject."""


class Owed:
    """The events that one process of the daemon must send, and how the channel has answered it.

    It is a listener of facts. Each process has its own: what a killed one still does changes no other.
    """

    def __init__(self, schedule: Schedule) -> None:
        self.failures = 0
        """The number of failures since the last success."""
        self.has_stop = False
        """Whether the channel has accepted the event about the daemon's stop."""
        self.hangs_at_stop = False
        """Whether a message hangs that was sent after SIGTERM. The daemon does not wait for it."""
        self._schedule = schedule
        self._since: dict[Event, float] = {("start", "", ""): schedule.mono}

    def on_fact(self, fact: object) -> None:
        """Record the bans and the changes of alarms that the daemon must send."""
        match fact:
            case Placed(announced=True):
                for ban in fact.bans:
                    self._add("ban", ban.rule, format_network(ban.network))
            case AlarmEvent() if fact.change in _TOPICS and not str(fact.code).startswith(_OWN):
                self._add(_TOPICS[fact.change], str(fact.code), fact.subject)

    def _add(self, topic: str, name: str, subject: str) -> None:
        self._since.setdefault((topic, name, shown(subject, MAX_TEXT)), self._schedule.mono)

    def accept(self, content: Mapping[str, Any]) -> None:
        """Record that a message has arrived."""
        events = content["events"]
        for one in events:
            self._since.pop((one["event"], one["name"], one["subject"]), None)
            self.has_stop = self.has_stop or one["event"] == "stop"
        if content["total"] > len(events):  # a message names only the first events, and counts all
            self._since.clear()

    def fail(self, content: Mapping[str, Any]) -> Delivery:
        """Return an answer that reports a failure. After ``TRIES`` of them, the daemon may drop a message."""
        self.failures += 1
        if self.failures % TRIES == 0:
            self.accept(content)
        return Delivery(ok=False, text="refused")

    def late(self) -> list[str]:
        """Return the events that should have been sent by now."""
        now = self._schedule.mono
        return [" ".join(filter(None, one)) for one, at in self._since.items() if now - at > SENT_WITHIN]


class Notify(Feature):
    """A channel of notifications.

    Invariant M: the channel accepts each new ban, and each alarm that begins or clears. If the daemon stops,
    the channel also accepts everything that waits, and the stop, unless it fails during the stop. What waits
    when a process is killed is lost.
    """

    kind = "notify"
    steps: ClassVar[Kinds] = {
        "mail fails": times("mail fails", 3),
        "mail answers are lost": times("mail answers are lost", 3),
        "mail hangs": times("mail hangs", 2),
    }
    faults = _FAULTS

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self._owed = Owed(self.host.schedule)
        self._missed: list[str] = []  # what earlier processes have not sent
        self._fails = self._loses = self._hangs = 0  # so many messages next

    def settings(self) -> Mapping[str, object]:
        """Return the table of the channel."""
        return {"notify": {"hook": [{"command": ["/bin/true"], "digest": "5s"}]}}

    def replaced(self) -> Sequence[Replaced]:
        """Return what sends the messages, and what builds the feature: its process begins then."""
        return [
            (notify, "Notifier", partial(notify.Notifier, sender=self._send)),
            (notify, "build", self._build),
        ]

    def _build(self, given: Given) -> notify.Notifier:
        self._owed = Owed(self.host.schedule)
        given.side.common.listeners.append(self._owed)
        return _BUILD(given)

    async def _send(
        self, channel: ChannelSettings, content: Mapping[str, Any], _host: str, _databases: tuple[Path, ...]
    ) -> Delivery:
        owed = self._owed
        if self._hangs:
            self._hangs -= 1
            owed.hangs_at_stop |= self.stage.process.daemon._stopped.is_set()
            await asyncio.sleep(channel.timeout + GRACE)
            return owed.fail(content)
        await asyncio.sleep(self.host.schedule.chosen.random() * ANSWERS_WITHIN)
        if self._fails:
            self._fails -= 1
            return owed.fail(content)
        owed.accept(content)
        if self._loses:
            self._loses -= 1
            return owed.fail(content)
        owed.failures = 0
        return Delivery(ok=True, text="accepted")

    def on_end(self, before: Path, after: Path) -> None:
        """Record what the process has not sent, if it was not killed. It has no files."""
        owed = self._owed
        if self.stage.process.is_over and not owed.failures and not owed.hangs_at_stop:
            self._missed += [*owed.late(), *(() if owed.has_stop else ("the stop",))]

    def heal(self) -> None:
        """End all faults. The quiet becomes longer by the pause until a message is sent again."""
        self._fails = self._loses = self._hangs = 0
        self.rest = min(LONGEST_PAUSE, FIRST_PAUSE * 2**self._owed.failures)

    # -- the steps

    def mail_fails(self, step: Step) -> None:
        """Let the channel refuse the next messages."""
        self._fails += step.number

    def mail_answers_are_lost(self, step: Step) -> None:
        """Let the channel accept the next messages, and lose its answers."""
        self._loses += step.number

    def mail_hangs(self, step: Step) -> None:
        """Let the channel hang with the next messages, until the daemon gives up."""
        self._hangs += step.number

    # -- what must hold

    def violations(self) -> Iterator[Violation]:
        """Yield the events that the channel has not accepted."""
        for event in (*self._missed, *self._owed.late()):
            yield Violation("M", f"the channel has not got: {event}")
