"""Active problems that an administrator must know. An alarm is logged once, and shown until it clears.

An alarm has a code, a subject, a text and a time. The subject is an address, an account or a part of
ringfence, or "" if there is none. Two reports with the same code and subject are one alarm: the second one
only counts as a repeat, but a new text is logged. An alarm ends (it *clears*) when the part that activated it
clears it, or when no part activates it again within ``lasts`` seconds.

An alarm about the state of a part is *held*: it lasts as long as the part reports it. Its repeats are not
counted. Its begin (as a warning) and its end are logged, but not a new text.

There are three limits for each code. At most ``MOST`` alarms are kept; after that, another one counts as a
repeat of the newest alarm, and a held one is left out. Only ``SHOWN`` alarms are shown: one half are those
that were activated most often, the others those that were activated last. At most ``MOST_LOGGED`` begins and
new texts are logged per minute.

A sender can forge any number of addresses, and so activate ``MOST`` alarms with one packet each. A real
attacker insists: its alarm is activated again and again. So alarms beyond ``MOST`` are counted too. As soon
as one of them was activated more often than one that is kept, it takes the other's place.

An administrator may *dismiss* an alarm: it is not shown until it is activated again. An alarm about a state
is not shown until it ends and begins again. If its code has the mark ``STATE``, because it is activated
again and again, a new text shows it too. A held one is also shown if its part reports that it got worse
(:meth:`Alarms.show_again`).

Each alarm has a number. Changes are kept for the database (:meth:`Alarms.take_changes`), and the next start
restores the alarms that had not cleared (:meth:`Alarms.restore`).
"""

from collections.abc import Iterable, Sequence
from heapq import nlargest
from math import inf, isfinite
from operator import attrgetter
from typing import Protocol

import structlog
from attrs import define, evolve, frozen

from ringfence.alarm_codes import Alarm, AnyAlarmCode, Mark
from ringfence.clock import Clock
from ringfence.values.text import printable, rfc3339

LASTS = 600.0  # seconds after which an alarm clears, unless activate() gets another time
MOST = 1_000
SHOWN = 20
MOST_LOGGED = 30
MINUTE = 60.0
RESTORED_FOR = 600.0
"""Seconds after a restart for which some restored alarms stay although no part has reported them again.

These are the alarms with the mark ``KNOWN_LATE``, and alarms that neither last as long as a part reports
them (the *held* ones) nor clear at a set time.
"""
REWRITE_AFTER = 30.0
"""Minimum seconds between two writes of an alarm to the database, if only its time and its count change."""
MOST_UNWRITTEN = 10_000

CHANGES = BEGAN, UPDATED, CLEARED, DISMISSED = (
    "began",
    "updated",  # the alarm has a new text
    "cleared",
    "dismissed",
)

_Key = tuple[AnyAlarmCode, str]


@frozen
class AlarmRecord:
    """An alarm as the database keeps it. Times are wall-clock seconds.

    ``since`` and ``last`` are the times of the first and the latest activation. ``until`` is when the alarm
    clears by itself; None if never, as with a ``held`` alarm, which lasts as long as a part reports it.
    ``times`` counts the activations. ``cleared`` and ``dismissed`` are None if this has not happened.
    """

    number: int
    code: AnyAlarmCode
    subject: str
    text: str
    since: float
    last: float
    until: float | None = None
    times: int = 1
    held: bool = False
    cleared: float | None = None
    dismissed: float | None = None
    dismissed_by: str = ""

    def as_json(self) -> dict[str, object]:
        """Return the alarm as a JSON object, control characters escaped."""
        return {
            "code": str(self.code),
            "subject": printable(self.subject),
            "text": printable(self.text),
            "since": rfc3339(self.since),
            "last": rfc3339(self.last),
            "times": self.times,
            "number": self.number,
            "cleared": _moment(self.cleared),
            "dismissed": _moment(self.dismissed),
            "dismissed_by": printable(self.dismissed_by),
        }


@frozen
class AlarmEvent:
    """A change of an alarm at ``time`` (wall-clock seconds).

    ``change`` is one of ``CHANGES``, such as "began". ``by`` is the administrator who made it; "" if none.
    """

    code: AnyAlarmCode
    subject: str
    text: str
    change: str
    time: float
    by: str = ""

    def as_json(self) -> dict[str, object]:
        """Return the change as a JSON object, control characters escaped."""
        return {
            "time": rfc3339(self.time),
            "change": self.change,
            "code": str(self.code),
            "subject": printable(self.subject),
            "text": printable(self.text),
            "by": printable(self.by),
        }


@define(eq=False)
class _State:
    """An active alarm: its present record, and when it clears by itself.

    The alarm clears at ``ends`` (inf: not by itself), and its record was last queued for the database at
    ``written``. Both are monotonic seconds, because somebody may set the wall clock.
    """

    record: AlarmRecord
    ends: float
    written: float = -inf


class AlarmListener(Protocol):
    """An object that is called with each change of an alarm."""

    def on_fact(self, fact: AlarmEvent) -> object:
        """Handle a change of an alarm."""


class Alarms:
    """Keeps the active alarms, and logs and reports their changes.

    Each of ``listeners`` is called with each change of an alarm.
    """

    def __init__(self, clock: Clock, listeners: Sequence[AlarmListener] = ()) -> None:
        self._clock = clock
        self._listeners = listeners
        self._up: dict[AnyAlarmCode, dict[str, _State]] = {}
        # By code: the latest minute in which alarms of this code were logged, and the number of these lines.
        self._logged: dict[AnyAlarmCode, tuple[int, int]] = {}
        # By code: how often each alarm was activated for which there was no room, the latest ones.
        self._outside: dict[AnyAlarmCode, dict[str, int]] = {}
        self._held: set[_Key] = set()
        # Restored held alarms with the mark KNOWN_LATE that no part has reported since the restart.
        self._unconfirmed: set[_Key] = set()
        self._unconfirmed_until = -inf
        self._numbered: dict[int, _State] = {}
        self._next = 1
        self._unwritten: dict[int, AlarmRecord] = {}
        self._log = structlog.get_logger()

    # -- alarms begin and end

    def activate(self, code: AnyAlarmCode, subject: str, text: str, lasts: float = LASTS) -> None:
        """Activate an alarm for ``lasts`` seconds from now; if it is active already, count a repeat.

        ``subject`` is the address, account or part that the alarm is about ("" for none), and ``text`` is for
        the administrator.
        """
        if self._record(code, subject, text, lasts) and self._may_log(code, self._clock.wall()):
            self._log.error(f"alarm.{code}", subject=subject, text=text)

    def _record(
        self, code: AnyAlarmCode, subject: str, text: str, lasts: float, *, held: bool = False
    ) -> bool:
        """Activate an alarm for ``lasts`` seconds from now, or count a repeat; return whether to log it.

        With ``held``, the alarm lasts as long as the part that reports it says, and repeats do not count.
        Return True if the alarm is new, is no longer dismissed, or has a new text. Return False for a new one
        if there is no room for it.
        """
        now, mono = self._clock.wall(), self._clock.mono()
        of_code = self._up.setdefault(code, {})
        known = of_code.get(subject)
        if known is None or mono >= known.ends:
            self._expire(of_code, mono)
        known = of_code.get(subject)
        until = now + lasts if isfinite(lasts) else None
        if known is None:
            times = self._make_room(code, subject, of_code)
            if not times:
                return False
            record = AlarmRecord(self._next, code, subject, text, now, now, until, times, held=held)
            self._next += 1
            self._change(self._add(of_code, _State(record, mono + lasts)), BEGAN, now)
            return True
        before = known.record
        changed = before.text != text
        returns = before.dismissed is not None and (changed or Mark.STATE not in code.marks)
        known.ends = mono + lasts
        known.record = evolve(before, text=text, last=now, until=until, times=before.times + 1, held=held)
        if returns:
            known.record = evolve(known.record, dismissed=None, dismissed_by="")
        if returns or changed:
            self._change(known, BEGAN if returns else UPDATED, now)
        elif mono - known.written >= REWRITE_AFTER:
            self._keep(known)
        return returns or changed

    def _make_room(self, code: AnyAlarmCode, subject: str, of_code: dict[str, _State]) -> int:
        """Make room for a new alarm about ``subject``; return its number of activations, 0 without room.

        ``of_code`` has the kept alarms of ``code``, by subject. If there are ``MOST``, the new alarm replaces
        the one that was activated least often, if it was itself activated more often. If not, its activation
        counts as a repeat of the newest alarm.
        """
        if len(of_code) < MOST:
            self._outside.pop(code, None)
            return 1
        outside = self._outside.setdefault(code, {})
        times = outside.pop(subject, 0) + 1
        if times > 1:
            others = (state for state in of_code.values() if not state.record.held)
            least = min(others, key=attrgetter("record.times"), default=None)
            if least is not None and least.record.times < times:
                self._end(of_code.pop(least.record.subject))
                return times
        outside[subject] = times
        if len(outside) > MOST:
            del outside[next(iter(outside))]
        latest = next(reversed(of_code.values()))
        latest.record = evolve(latest.record, times=latest.record.times + 1)
        return 0

    def _add(self, of_code: dict[str, _State], state: _State) -> _State:
        of_code[state.record.subject] = self._numbered[state.record.number] = state
        return state

    def _may_log(self, code: AnyAlarmCode, now: float) -> bool:
        """Count a log line about this code at ``now`` (seconds); return whether its minute has room."""
        minute, number = self._logged.get(code, (0, 0))
        if int(now / MINUTE) != minute:
            minute, number = int(now / MINUTE), 0
        self._logged[code] = minute, number + 1
        return number < MOST_LOGGED

    def clear(self, code: AnyAlarmCode, subject: str) -> None:
        """End the alarm with this code and subject; do nothing if it is not active."""
        state = self._up.get(code, {}).pop(subject, None)
        if state is not None:
            self._end(state)
            self._log.info(f"alarm.{code}.cleared", subject=subject)

    def _end(self, state: _State) -> None:
        now = self._clock.wall()
        self._numbered.pop(state.record.number, None)
        state.record = evolve(state.record, cleared=now)
        self._change(state, CLEARED, now)

    def hold(self, alarms: Iterable[Alarm]) -> None:
        """Make ``alarms`` the alarms that last until the next call; clear earlier ones that are missing.

        A restored alarm that is not in ``alarms`` stays for ten minutes after the restart if its code has the
        mark ``KNOWN_LATE``: it can be reported only after some time.
        """
        held = {(alarm.code, alarm.subject): alarm.text for alarm in alarms}
        self._unconfirmed -= held.keys()
        if self._clock.mono() >= self._unconfirmed_until:
            self._unconfirmed.clear()
        for code, subject in self._held - held.keys() - self._unconfirmed:
            self.clear(code, subject)
        for (code, subject), text in held.items():
            state = self._up.get(code, {}).get(subject)
            if state is not None and (code, subject) in self._held:
                if state.record.text != text:
                    state.record = evolve(state.record, text=text)
                    self._keep(state)
            elif len(self._up.get(code, {})) < MOST:
                self._record(code, subject, text, inf, held=True)
                if self._may_log(code, self._clock.wall()):
                    self._log.warning(f"alarm.{code}", subject=subject, text=text)
        self._held = held.keys() | self._unconfirmed

    def show_again(self, code: AnyAlarmCode, subject: str) -> None:
        """Show a held alarm that was dismissed, because it got worse; do nothing if it is not dismissed."""
        state = self._up.get(code, {}).get(subject)
        if state is None or state.record.dismissed is None:
            return
        now, before = self._clock.wall(), state.record
        state.record = evolve(before, last=now, times=before.times + 1, dismissed=None, dismissed_by="")
        self._change(state, BEGAN, now)
        if self._may_log(code, now):
            self._log.warning(f"alarm.{code}", subject=subject, text=before.text)

    def count(self) -> dict[AnyAlarmCode, int]:
        """Return the number of active alarms for each code that has any; dismissed ones do not count."""
        self.expire()
        numbers = {code: sum(1 for _ in _shown(of_code)) for code, of_code in self._up.items()}
        return {code: number for code, number in numbers.items() if number}

    @property
    def active(self) -> list[AlarmRecord]:
        """The active alarms that are not dismissed, at most ``SHOWN`` of each code; last activated first.

        If a code has more, half of those shown are the most often activated, the other half the latest.
        """
        self.expire()
        found: list[AlarmRecord] = []
        for of_code in self._up.values():
            often = nlargest(SHOWN // 2, _shown(of_code), key=attrgetter("times", "last"))
            numbers = {one.number for one in often}
            others = (one for one in _shown(of_code) if one.number not in numbers)
            found += often + nlargest(SHOWN - SHOWN // 2, others, key=attrgetter("last"))
        return sorted(found, key=attrgetter("last"), reverse=True)

    @property
    def shown(self) -> list[AlarmRecord]:
        """All active alarms that are not dismissed, however many a code has; last activated first."""
        self.expire()
        found = (one for of_code in self._up.values() for one in _shown(of_code))
        return sorted(found, key=attrgetter("last"), reverse=True)

    def expire(self) -> None:
        """Clear the alarms whose time is over: nothing activated them again within ``lasts`` seconds."""
        mono = self._clock.mono()
        for of_code in self._up.values():
            self._expire(of_code, mono)

    def _expire(self, of_code: dict[str, _State], mono: float) -> None:
        over = [subject for subject, state in of_code.items() if mono >= state.ends]
        for subject in over:
            self._end(of_code.pop(subject))

    def records(self) -> list[AlarmRecord]:
        """Return all active alarms, including dismissed ones, in the order in which they began."""
        self.expire()
        found = (state.record for of_code in self._up.values() for state in of_code.values())
        return sorted(found, key=attrgetter("number"))

    # -- requests of administrators

    def dismiss(self, number: int, by: str) -> AlarmRecord | None:
        """Hide an active alarm until it happens again; ``by`` is the administrator.

        Return the alarm's record; None if no active alarm has this number.
        """
        now = self._clock.wall()
        state = self._numbered.get(number)
        if state is None:
            return None
        state.record = evolve(state.record, dismissed=now, dismissed_by=by)
        self._change(state, DISMISSED, now, by)
        return state.record

    # -- restore from the database, and changes for it

    def restore(self, records: Iterable[AlarmRecord], following: int | None) -> None:
        """Restore the alarms that were active when the daemon last ended. Nothing is logged.

        A record is cleared, and not restored, in any of these cases: its time is over, its code has the mark
        ``ENDED_BY_RESTART`` (its state was only in memory), a later record has the same code and subject, or
        there are ``MOST`` alarms of its code already.

        ``following`` is the number of the next new alarm. If it is unknown (None), the present time in
        seconds is used, because it is greater than the number of any earlier alarm.
        """
        now, mono = self._clock.wall(), self._clock.mono()
        self._next = max(self._next, following if following is not None else int(now))
        records = list(records)
        latest = {(record.code, record.subject): record for record in records}
        for record in records:
            of_code = self._up.setdefault(record.code, {})
            if latest[record.code, record.subject] is not record or len(of_code) >= MOST:
                self._keep(_State(evolve(record, cleared=now), inf))
                continue
            left = _end_of(record, now) - now
            state = _State(record, mono + left, mono)
            if Mark.ENDED_BY_RESTART in record.code.marks or left <= 0.0:
                self._end(state)
                continue
            self._add(of_code, state)
            if record.held:
                self._held.add((record.code, record.subject))
        self._unconfirmed = {key for key in self._held if Mark.KNOWN_LATE in key[0].marks}
        self._unconfirmed_until = mono + RESTORED_FOR

    def take_changes(self) -> list[AlarmRecord]:
        """Return the records of the alarms that changed since the last call, for the database."""
        changed = list(self._unwritten.values())
        self._unwritten.clear()
        return changed

    def _change(self, state: _State, change: str, now: float, by: str = "") -> None:
        self._keep(state)
        record = state.record
        event = AlarmEvent(record.code, record.subject, record.text, change, now, by)
        for listener in self._listeners:
            listener.on_fact(event)

    def _keep(self, state: _State) -> None:
        number = state.record.number
        if len(self._unwritten) >= MOST_UNWRITTEN and number not in self._unwritten:
            del self._unwritten[next(iter(self._unwritten))]
        self._unwritten[number] = state.record
        state.written = self._clock.mono()


def _end_of(record: AlarmRecord, now: float) -> float:
    """Return when a restored alarm clears by itself (wall-clock seconds); inf for a held alarm.

    Usually this is the time in its record. That time may be far in the future, because the clock was wrong
    then. So the alarm stays at most for the recorded duration, counted from now.
    """
    if record.held:
        return inf
    if record.until is None:
        return now + RESTORED_FOR
    return min(record.until, now + record.until - record.last)


def _shown(of_code: dict[str, _State]) -> Iterable[AlarmRecord]:
    return (state.record for state in of_code.values() if state.record.dismissed is None)


def _moment(seconds: float | None) -> str | None:
    return None if seconds is None else rfc3339(seconds)
