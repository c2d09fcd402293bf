"""Events, attempts, bans and alarms as lines of JSON, for the commands that follow them as they happen.

Each such command is a *follower*. Each user has at most ``MOST_FOLLOWERS``, and the control socket limits the
connections of all users. An entry is encoded when the first follower reads it, and only once for all
followers.

Each follower has a queue of at most ``MOST_WAITING`` entries. If a follower reads too slowly, new entries are
dropped, and one line in their place has their number. To limit the daemon's work in a flood of attempts, a
follower gets at most ``BATCH`` lines every ``PACE`` seconds.

A new follower first gets the latest entries: ``MOST_LATEST`` attempts, as many bans, and as many alarms.
"""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from attrs import define, frozen

from ringfence.alarms import AlarmEvent
from ringfence.ban_facts import Fact, Over, Placed
from ringfence.clock import Clock
from ringfence.control import LINE_KINDS
from ringfence.control_server import PEER, Handler, Stream
from ringfence.detect.judgement import Disposition, Judgement
from ringfence.errors import ControlError
from ringfence.explain.account import reason_of
from ringfence.values.ban import Ban, ban_json
from ringfence.values.event import SecurityEvent
from ringfence.values.network import format_network
from ringfence.values.text import printable, rfc3339

if TYPE_CHECKING:
    from ringfence.guard.pipeline import EventListener

MOST_WAITING = 1_000
MOST_FOLLOWERS = 16
MOST_LATEST = 200
MOST_TEXT = 256  # characters: a longer text in a line is cut
BATCH = 100
PACE = 0.05  # seconds between two groups of at most BATCH lines for one follower


@frozen
class _Lost:
    """A notice to a follower (a command that shows what happens) that entries were dropped for it."""

    number: int


@define(eq=False)
class _Entry:
    """Something that happened. ``kind`` is ``event``, ``attempt``, ``ban``, ``alarm`` or ``lost``.

    Attempts, bans and alarms have an ascending ``number``, by which they are sorted; other entries have 0.
    ``happened`` is what happened, and ``time`` is when (wall-clock seconds).
    """

    number: int
    kind: str
    happened: SecurityEvent | Judgement | Ban | Over | AlarmEvent | _Lost
    time: float
    _line: bytes = b""

    def row(self) -> dict[str, object]:
        """Return the entry as JSON values; the key ``what`` has its kind."""
        return {"what": self.kind, **self._fields()}

    def _fields(self) -> dict[str, object]:
        match self.happened:
            case SecurityEvent() as event:
                return _event(event)
            case Judgement() as judgement:
                return _attempt(judgement)
            case Ban() as ban:
                return _ban(ban)
            case Over() as over:
                return _ban_end(over, self.time)
            case AlarmEvent() as change:
                return change.as_json()
            case _Lost(number):
                return {"time": rfc3339(self.time), "number": number}

    def line(self) -> bytes:
        """Return the entry as a line of JSON. Encode it at the first call, and keep it for the next ones."""
        if not self._line:
            self._line = json.dumps(self.row()).encode() + b"\n"
        return self._line


@define(eq=False)
class _Follower:
    """The queue of a follower, a command that shows what happens. ``kinds`` are the kinds that it wants.

    ``user`` is the id of its user, None if it is unknown.
    ``waiting`` are the entries that it has not read yet; ``arrived`` is set while there are any. ``lost`` is
    the number of entries that were dropped since the queue became full.
    """

    user: int | None
    kinds: Collection[str]
    waiting: deque[_Entry]
    arrived: asyncio.Event
    clock: Clock
    lost: int = 0

    def add(self, entry: _Entry) -> None:
        """Add an entry to the follower's queue, or count it as lost if the queue is full."""
        if len(self.waiting) >= MOST_WAITING:
            self.lost += 1
            return
        self.report_lost()
        self.waiting.append(entry)
        self.arrived.set()

    def report_lost(self) -> None:
        """If the full queue lost entries, add an entry of the kind ``lost`` with their number."""
        if self.lost:
            self.waiting.append(_Entry(0, "lost", _Lost(self.lost), self.clock.wall()))
            self.lost = 0


class Followers:
    """Passes what happens on to commands that follow it (*followers*), and keeps the latest entries."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.event_listeners: list[EventListener] = []
        """The listeners to the sources' events. This object is one of them while a follower wants events."""
        self._followers: list[_Follower] = []
        self._number = 0
        self._latest: dict[str, deque[_Entry]] = {
            kind: deque(maxlen=MOST_LATEST) for kind in ("attempt", "ban", "alarm")
        }

    # -- new entries

    def on_events(self, events: Sequence[SecurityEvent]) -> None:
        """Pass on the events of a source to the followers that want events. They are not kept."""
        wanted = [follower for follower in self._followers if "event" in follower.kinds]
        for event in events:
            entry = _Entry(0, "event", event, event.time)
            for follower in wanted:
                follower.add(entry)

    def on_judgement(self, judgement: Judgement) -> None:
        """Pass an attempt on to the followers, unless it was counted before."""
        if judgement.disposition is not Disposition.COUNTED_BEFORE:
            self._add("attempt", judgement)

    def on_fact(self, fact: Fact | AlarmEvent) -> None:
        """Pass on bans that the kernel acknowledged, the end of a ban, and a change of an alarm."""
        if isinstance(fact, Placed):
            for ban in fact.bans:
                self._add("ban", ban)
        elif isinstance(fact, Over):
            self._add("ban", fact)
        elif isinstance(fact, AlarmEvent):
            self._add("alarm", fact)

    def _add(self, kind: str, happened: Judgement | Ban | Over | AlarmEvent) -> None:
        self._number += 1
        entry = _Entry(self._number, kind, happened, self._clock.wall())
        self._latest[kind].append(entry)
        for follower in self._followers:
            if kind in follower.kinds:
                follower.add(entry)

    # -- requests of commands

    def latest(self, kinds: Collection[str]) -> list[dict[str, object]]:
        """Return the latest entries of these kinds, at most MOST_LATEST each, as JSON, oldest first."""
        return [entry.row() for entry in self._latest_of(kinds)]

    def _latest_of(self, kinds: Collection[str]) -> list[_Entry]:
        found = (entries for kind, entries in self._latest.items() if kind in kinds)
        return sorted(chain.from_iterable(found), key=attrgetter("number"))

    def handlers(self) -> dict[str, Handler]:
        """Return the handler of each request about entries, by the request's name."""
        return {"latest": self._latest_rows, "follow": self._follow}

    def _latest_rows(self, request: Mapping[str, Any]) -> list[dict[str, object]]:
        return self.latest(_kinds(request))

    def _follow(self, request: Mapping[str, Any]) -> Stream:
        return Stream(self.follow(_kinds(request)))

    def follow(self, kinds: Collection[str]) -> AsyncIterator[bytes]:
        """Return an endless iterator: first over the latest lines, and then over new lines as they arrive.

        Each item has up to ``BATCH`` lines. Raise ControlError if the user has MOST_FOLLOWERS already.
        """
        peer = PEER.get()
        user = peer.user if peer is not None else None
        if sum(follower.user == user for follower in self._followers) >= MOST_FOLLOWERS:
            raise ControlError(f"{MOST_FOLLOWERS} commands of your user follow already; end one of them")
        return self._lines(user, kinds)

    async def _lines(self, user: int | None, kinds: Collection[str]) -> AsyncIterator[bytes]:
        # The follower is registered here and not in follow(). If a generator is never started, its
        # ``finally`` does not run, and the follower would stay registered. Entries that arrive before the
        # generator starts are not missed, because the queue begins with the latest entries.
        follower = _Follower(user, kinds, deque(self._latest_of(kinds)), asyncio.Event(), self._clock)
        follower.arrived.set()
        self._followers.append(follower)
        if "event" in kinds and self not in self.event_listeners:
            self.event_listeners.append(self)
        try:
            while True:
                await follower.arrived.wait()
                waiting = follower.waiting
                lines = [waiting.popleft().line() for _ in range(min(BATCH, len(waiting)))]
                if not waiting:
                    follower.report_lost()
                if not waiting:  # and nothing was lost: otherwise the entry about that waits
                    follower.arrived.clear()
                yield b"".join(lines)
                await asyncio.sleep(PACE)
        finally:
            self._followers.remove(follower)
            if self in self.event_listeners and not any("event" in one.kinds for one in self._followers):
                self.event_listeners.remove(self)


def _kinds(request: Mapping[str, Any]) -> Collection[str]:
    return frozenset(request.get("kinds", LINE_KINDS))


def _text(text: str) -> str:
    return printable(text if len(text) <= MOST_TEXT else text[: MOST_TEXT - 1] + "…")


def _event(event: SecurityEvent) -> dict[str, object]:
    return {
        "time": rfc3339(event.time),
        "source": _text(str(event.source)),
        "kind": str(event.kind),
        "service": str(event.service),
        "address": str(event.remote.address),
        "port": event.remote.port,
        "transport": str(event.remote.transport),
        "account": _text(event.account),
        "tampered": event.tampered,
    }


def _attempt(judgement: Judgement) -> dict[str, object]:
    attempt = judgement.attempt
    return {
        "time": rfc3339(attempt.time),
        "address": str(attempt.address),
        "subject": format_network(judgement.subject),
        "account": _text(attempt.account),
        "reason": reason_of(attempt),
        "kind": str(attempt.kind),
        "service": str(attempt.service),
        "transport": str(attempt.transport),
        "proof": attempt.proof.name.lower(),
        "standing": str(judgement.disposition),
        "asterisk": _text(attempt.asterisk),
    }


def _ban(ban: Ban) -> dict[str, object]:
    return {
        "time": rfc3339(ban.since),
        "change": "placed",
        "address": format_network(ban.network),
        "scope": str(ban.scope),
        **ban_json(ban),
    }


def _ban_end(fact: Over, moment: float) -> dict[str, object]:
    return {
        "time": rfc3339(moment),
        "change": str(fact.how),
        **fact.how.as_json(),
        "address": format_network(fact.network),
        "scope": str(fact.scope),
    }
