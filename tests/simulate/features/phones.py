"""Phones that are gone in a story: contacts that leave, return and move, whether or not AMI is read.

A day and an hour of the daemon are seconds here, in an order that keeps what they are for: a phone is listed
several times within its day, and saved several times within its hour.
"""
# ruff: noqa: ANN401 - a replaced function may be any

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from math import inf
from pathlib import Path
from typing import Any, ClassVar

from tests.judge.asterisk import PBX, SECOND
from tests.judge.oracle import Violation
from tests.simulate.asterisk import Manager
from tests.simulate.feature import Replaced, Stage, WatchedFeature
from tests.simulate.put_back import Row, does_nothing
from tests.simulate.step import Kinds, Step, times

from ringfence.features.phones import absence
from ringfence.features.phones import guard as phones
from ringfence.features.phones.alarms import PhonesAlarmCode
from ringfence.features.phones.guard import GonePhones
from ringfence.ledger import CLOCK_STEP
from ringfence.sources import roster

DAY, BREAK, GONE_AFTER = 30.0, 10.0, 10.0
"""Seconds: how long a phone must have been there, an absence after which it is new, and ``gone_after``."""
_TIMES = (
    *((absence, "DAY", DAY), (absence, "BREAK", BREAK), (phones, "BREAK", BREAK)),
    *((phones, "LOOK_EVERY", 1.0), (phones, "SAVE_EVERY", 4.0), (phones, "SAVE_CHANGED", 2.0)),
    (roster, "EVERY", 5.0),
)
"""The times of the daemon that are shorter, each by its module and its name."""
SEEN_WITHIN = 5.0
"""Seconds within which the daemon has handled a report of AMI, or a list, if it reads them."""
LIST_WITHIN = 1.0
"""Seconds that it takes to read all lists. A report meanwhile may be older than they are, or newer."""
SAVED_WITHIN = 6.0
"""Seconds within which the database has what the daemon has handled, if the disk works."""
SHOWN_WITHIN = 4.0
"""Seconds within which the alarm shows what the daemon has found."""
LOOKED_WITHIN = 2.0
"""Seconds within which the daemon looks for phones that are gone, and whether AMI is connected."""

_PHONES = (
    (PBX, "PJSIP", "301", ("100.80.1.7", "100.80.2.7")),
    (PBX, "SIP", "302", ("100.81.1.7", "100.81.2.7")),
    (SECOND, "PJSIP", "303", ("100.82.1.7", "100.82.2.7")),
)
"""Of each phone the Asterisk, the technology, the account, and its two addresses. No sender has one."""
_NAMES = re.compile(r"\(([^()]*)\)")
"""The accounts in the text of the alarm, after the network of each."""


def _without_exchange(right: Any) -> Any:
    def disappear(self: Any, asterisk: str, account: str, address: Any, now: float) -> None:
        mine = self._accounts.get(asterisk, {}).get(account)
        known = [] if mine is None else [(one, one.since) for one in mine.present.values()]
        for one, _ in known:
            if one.address != address:
                one.since = -inf  # none is younger than the phone that disappears
        right(self, asterisk, account, address, now)
        for one, since in known:
            one.since = since

    return disappear


_ABSENCES = "ringfence.features.phones.absence:Absences"
_LEAVES = (Step("phones", wait=0.0), Step("phone leaves", wait=39.5, number=1))
"""A phone that was there for its day leaves between two lists."""
_FAULTS: Sequence[Row] = (
    (
        "phones that a restart forgets",
        "A phone that was gone before was never missed after it.",
        f"{_ABSENCES}.restore",
        does_nothing,
        "G",
        [*_LEAVES, Step("kill", wait=13.0, seconds=0.1)],
    ),
    (
        "phones that are not saved",
        "The database had none, so the next process knew no phone that was gone.",
        "ringfence.features.phones.table:PhonesTable.replace",
        does_nothing,
        "G",
        [*_LEAVES, Step("kill", wait=13.0, seconds=0.1)],
    ),
    (
        "a phone that nobody could see",
        "While AMI was not connected, its absence went on, and no phone could show that it was there.",
        f"{_ABSENCES}.postpone",
        does_nothing,
        "G",
        [*_LEAVES, Step("cut", seconds=3.0), Step("rotate", wait=15.0)],
    ),
    (
        "a phone that moves",
        "It was missed at its earlier address.",
        f"{_ABSENCES}._disappear",
        _without_exchange,
        "G",
        [Step("phones", wait=0.0), Step("phone moves", wait=39.5, number=1)],
    ),
)


class _Phone:
    """A phone, which has one contact at a time. All times are monotonic seconds.

    ``stays`` are the times at which it came and left; inf: it has not left. It moves between its addresses.
    """

    def __init__(self, manager: Manager, technology: str, account: str, addresses: Sequence[str]) -> None:
        self.manager = manager
        self.account = account
        self.stays: list[tuple[float, float]] = []
        self.moves: list[float] = []
        self._technology = technology
        self._addresses = addresses

    @property
    def is_here(self) -> bool:
        """Whether Asterisk has its contact."""
        return bool(self.stays) and self.stays[-1][1] == inf

    @property
    def changes(self) -> list[float]:
        """When it came, left and moved."""
        return sorted([*self.moves, *(time for stay in self.stays for time in stay if time < inf)])

    @property
    def _address(self) -> str:
        return self._addresses[len(self.moves) % 2]

    # -- what it does

    def come(self, now: float) -> None:
        """Register at Asterisk."""
        self.manager.arrive(self._technology, self.account, self._address)
        self.stays.append((now, inf))

    def leave(self, now: float) -> None:
        """End the registration."""
        self.manager.leave(self._technology, self.account, self._address)
        self.stays[-1] = self.stays[-1][0], now

    def move(self, now: float) -> None:
        """Register at the other address. With PJSIP, the old contact ends after or before that, in turn."""
        before = self._address
        self.moves.append(now)
        if self._technology == "PJSIP" and len(self.moves) % 2 == 0:
            self.manager.leave(self._technology, self.account, before)
        self.manager.arrive(self._technology, self.account, self._address)
        if self._technology == "PJSIP" and len(self.moves) % 2 == 1:
            self.manager.leave(self._technology, self.account, before)

    # -- what the daemon can have seen of it

    def seen(self, time: float, *, by_list: bool = False) -> float:
        """Return by when the daemon has surely handled a change at a time; inf if it perhaps has not.

        It gets a report at once. But one that comes while it reads the lists may count only at the next list,
        because these lists are older. ``by_list``: only a list counts.
        """
        by_list = by_list or any(
            one <= time < self._calm(one, LIST_WITHIN) for one in self.manager.listed[self._technology]
        )
        for begin, end in self.manager.readings:
            at = self._next_list(max(begin, time)) if by_list or time < begin else time
            if (seen := self._calm(at, SEEN_WITHIN)) <= end:
                return seen
        return inf

    def first_due(self, left: float) -> float:
        """Return the earliest time at which the daemon may list an absence that began at ``left``.

        An absence counts from an hour after the first list of a connection, or from a later report. Until
        that list, it counts from the latest look at which AMI was not connected, if there was one.
        """
        for (begin, end), (following, _) in pairwise([*self.manager.readings, (inf, inf)]):
            if end <= left:
                continue
            start = left
            if begin > left:
                is_listed_soon = self.listed_by(begin) < begin + GONE_AFTER - LOOKED_WITHIN
                start = begin + BREAK if is_listed_soon else begin - LOOKED_WITHIN
            is_short = following < end + LOOKED_WITHIN  # perhaps no look noticed that the connection ended
            until = self.listed_by(following) if is_short else end + LOOKED_WITHIN
            if start + GONE_AFTER <= until:
                return start + GONE_AFTER
        return inf

    def listed_by(self, time: float) -> float:
        """Return by when the daemon has handled the first list that it gets at a time or later."""
        return self._calm(self._next_list(time), SEEN_WITHIN)

    def _next_list(self, time: float) -> float:
        return next((one for one in self.manager.listed[self._technology] if one >= time), inf)

    def _calm(self, time: float, seconds: float) -> float:
        """Return the time some seconds later, in which AMI does not hold back any byte."""
        until = time + seconds
        for begin, end in self.manager.holds:
            if begin <= until:
                until = max(until, end + seconds)
        return until


class Phones(WatchedFeature):
    """Phones that leave, return and move.

    Invariant G: the alarm ``phone.gone`` names each phone that was there for its day and is away for longer
    than ``gone_after``, and never another one, such as one that only moved. The time in which AMI is not read
    does not count, nor does an hour after each login there.

    The daemon learns of a change some time later, or at its next list, and a restart may forget what was not
    saved. So each time is known only within bounds. A phone that changes again soon after it has moved is
    left out: the daemon may still take its earlier contact for a second phone of the account.
    """

    kind = "phones"
    letter = "G"
    steps: ClassVar[Kinds] = {
        one: times(one, len(_PHONES)) for one in ("phone leaves", "phone returns", "phone moves")
    }
    faults = _FAULTS

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self._phones = [
            _Phone(self.host.managers[asterisk], technology, account, addresses)
            for asterisk, technology, account, addresses in _PHONES
        ]
        self._restarts: list[tuple[float, bool]] = []  # when a process ended, and whether it had saved
        self._was_set = False  # whether the clock was set
        self._had_outage = False  # whether the daemon had outage mode, in which no phone is listed
        self._loses_power = False
        for phone in self._phones:
            phone.come(self.host.schedule.mono)

    def settings(self) -> Mapping[str, object]:
        """Return the table of the phones."""
        return {"phones": {"gone_after": f"{GONE_AFTER:.0f}s"}}

    def replaced(self) -> Sequence[Replaced]:
        """Return the shorter times. The daemon reads each when it uses it, so they outlive a restart."""
        return _TIMES

    # -- the steps

    def phone_leaves(self, step: Step) -> None:
        """Let a phone end its registration, if it is there."""
        phone = self._phones[step.number - 1]
        if phone.is_here:
            phone.leave(self.host.schedule.mono)

    def phone_returns(self, step: Step) -> None:
        """Let a phone register again, if it is away."""
        phone = self._phones[step.number - 1]
        if not phone.is_here:
            phone.come(self.host.schedule.mono)

    def phone_moves(self, step: Step) -> None:
        """Let a phone register at its other address, if it is there."""
        phone = self._phones[step.number - 1]
        if phone.is_here:
            phone.move(self.host.schedule.mono)

    def on_step(self, step: Step) -> None:
        """Record that the clock is set, or that the power fails."""
        self._was_set = self._was_set or abs(step.set) > CLOCK_STEP
        self._loses_power = step.kind == "power loss"

    def on_end(self, before: Path, after: Path) -> None:
        """Record whether the process has saved what it knew. The feature has no files."""
        works = self.stage.process.store.best_effort.takes_writes and not self.host.disk.error
        self._restarts.append((self.host.schedule.mono, works and not self._loses_power))

    # -- what must hold

    def look(self) -> None:
        """Record which phones the daemon lists as gone that are not."""
        process = self.stage.process
        self._had_outage = self._had_outage or process.side.exempt.friends.friends.outage_mode
        features = [one for one in process.daemon.features.all if isinstance(one, GonePhones)]
        self._note_wrong(_named(alarm.text for one in features for alarm in one.alarms()))

    def violations(self) -> Iterator[Violation]:
        """Yield the phones that were listed wrongly at any time, and those that the alarm lacks."""
        active = self.stage.process.side.common.alarms.active
        named = _named(one.text for one in active if one.code is PhonesAlarmCode.PHONE_GONE)
        self._note_wrong(named)
        yield from super().violations()
        for phone in self._phones:
            if phone.account not in named and self._must_be_named(phone):
                yield Violation("G", f"the alarm does not name {phone.account}, which is gone")

    def _note_wrong(self, named: Iterable[str]) -> None:
        known = {phone.account: phone for phone in self._phones}
        for account in sorted(named):
            phone = known.get(account)
            if phone is None or (self._is_clear(phone) and not self._may_be_named(phone)):
                self.note(f"{account} is listed as gone")

    def _is_clear(self, phone: _Phone) -> bool:
        """Whether after each move the daemon forgot the earlier contact before the phone changed again.

        If the list lacks that contact only after a day, it is a second phone of the account.
        """
        for move in phone.moves:
            following = next((one for one in phone.changes if one > move), inf)
            listed = phone.seen(move, by_list=True)
            if listed - move + self.stage.drift >= DAY:
                return False
            again = [phone.seen(end) for end, _ in self._restarts if move < end < following]
            if following < max([listed, *again]) + BREAK + LOOKED_WITHIN:
                return False
        return True

    def _may_be_named(self, phone: _Phone) -> bool:
        """Whether the alarm may name a phone now."""
        now = self.host.schedule.mono
        if phone.is_here:
            return now < self._known_by(phone, phone.stays[-1][0], now) + SHOWN_WITHIN
        for number, (came, left) in reversed([*enumerate(phone.stays)]):
            lasted = self._known_by(phone, left, now) - self._earliest(phone, number) + self.stage.drift
            if lasted >= DAY and phone.first_due(left) <= now:
                return True
            if self._known_by(phone, came, now) <= left:  # otherwise it may have missed that the phone came
                return False
        return False

    def _must_be_named(self, phone: _Phone) -> bool:
        """Whether the alarm must name a phone now."""
        now, (came, left), drift = self.host.schedule.mono, phone.stays[-1], self.stage.drift
        begin, end = [(inf, 0.0), *phone.manager.readings][-1]
        if phone.is_here or self._had_outage or end < inf or not self._is_clear(phone):
            return False
        # A move that the daemon saw only in part may have been a break, after which the phone was new.
        moved = [(move, phone.seen(move)) for move in phone.moves if came < move < left]
        again = [seen for move, seen in moved if seen - move + drift >= BREAK]
        since = max([self._known_by(phone, came, left, is_here=True), *again])
        seen = phone.seen(left)
        is_saved = all(saved and seen + SAVED_WITHIN <= at for at, saved in self._restarts if at > left)
        due = max(seen, phone.listed_by(begin) + BREAK) + GONE_AFTER + SHOWN_WITHIN
        return is_saved and left - since - drift >= DAY and due <= now

    def _earliest(self, phone: _Phone, number: int) -> float:
        """Return the earliest time from which the daemon may count a stay: short absences are no end."""
        now, since = self.host.schedule.mono, phone.stays[number][0]
        for came, left in reversed(phone.stays[:number]):
            if since - self._known_by(phone, left, now) - self.stage.drift >= BREAK:
                break
            since = came
        return since

    def _known_by(self, phone: _Phone, time: float, until: float, *, is_here: bool = False) -> float:
        """Return by when the daemon, as it is at ``until``, has handled a change at ``time``.

        If a restart may have lost that, the next list counts. A phone that ``is_here`` is new after it, if
        nobody saw the phone for long.
        """
        known = phone.seen(time)
        for end, saved in self._restarts:
            if time < end < until:
                begin = next((one for one, _ in phone.manager.readings if one >= end), inf)
                is_fresh = begin - end + SAVED_WITHIN + self.stage.drift < BREAK
                is_kept = saved and not self._was_set and known + SAVED_WITHIN <= end
                if not is_kept or (is_here and not is_fresh):
                    known = phone.seen(end)
        return known


def _named(texts: Iterable[str]) -> frozenset[str]:
    """Return the accounts that texts of the alarm name."""
    return frozenset(name for text in texts for found in _NAMES.findall(text) for name in found.split(", "))
