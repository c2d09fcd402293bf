"""Logins elsewhere in a story: an account that logs in from several networks, and is confirmed at times.

No database of countries is configured, so the wide network of a login decides.
"""
# ruff: noqa: ANN401 - a replaced function may be any

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_network
from math import inf
from pathlib import Path
from typing import Any, ClassVar

from tests.judge.asterisk import PBX, Act
from tests.judge.oracle import Violation
from tests.simulate.feature import Feature, Replaced, Stage
from tests.simulate.put_back import Row, does_nothing
from tests.simulate.step import Kinds, Step, times

from ringfence.detect.friends import account_of
from ringfence.detect.judgement import Login
from ringfence.features.account import guard as account_guard
from ringfence.features.account import places as account_places
from ringfence.features.account.alarms import AccountAlarmCode
from ringfence.features.account.guard import SAVE_EVERY, LoginWatch
from ringfence.features.account.places import DAY, OWN_DAYS
from ringfence.guard.feature import Changed, Given
from ringfence.ledger import CLOCK_STEP
from ringfence.values.network import Network

ACCOUNT = "205"
"""An account of the first Asterisk that logs in only by steps of this feature: all others guess at it."""
ADDRESSES = ("100.64.7.7", "100.65.7.7", "100.66.7.7")
"""Its addresses. Each is in a wide network of its own, in which no other sender of a story is."""
LEARNED_FOR = 10.0
"""The seconds for which the account is learned: a month would be too long."""
GRADED_WITHIN = 0.1
"""Seconds within which the daemon grades a login at a new place: in its next turn."""
SAVED_WITHIN = 4.0
"""Seconds within which the database has a change of an alarm, if the disk works: they are saved each two."""
PLACES_SAVED_WITHIN = 1.1 * SAVE_EVERY + SAVED_WITHIN
"""The same for the places: a period may begin up to a tenth late (``clock.py``)."""
_NEARLY = 0.5
"""Seconds by which the age of the account may differ from ours, besides the drift of the clock."""
_SUBJECT = f"{ACCOUNT} at "
"""How the subject of an alarm about the account begins. Its place follows."""
_BUILD = account_guard.build


def _logs_in(number: int, wait: float) -> Step:
    return Step("act", Act("logs in", ADDRESSES[number - 1], account=ACCOUNT), wait=wait)


def _confirms_in_memory(right: Any) -> Any:
    def confirm(self: Any, request: Any) -> Any:
        self._save = lambda: None
        try:
            return right(self, request)
        finally:
            del self._save

    return confirm


_FEATURE = "ringfence.features.account"
_BEGIN = Step("accounts", wait=0.0)
# The first process saves the places 20 s after the beginning, and then each minute.
_FAULTS: Sequence[Row] = (
    (
        "places that are not saved",
        "After a restart, an account was new, and every place was learned.",
        f"{_FEATURE}.table:AccountTable.save",
        does_nothing,
        "W",
        [_BEGIN, _logs_in(1, 3.3), Step("kill", wait=80.0, seconds=0.1)],
    ),
    (
        "places that a stop does not save",
        "What a minute before the stop had brought was forgotten.",
        f"{_FEATURE}.guard:LoginWatch.finish",
        does_nothing,
        "W",
        [_BEGIN, _logs_in(1, 1.0), Step("stop", wait=8.0, seconds=0.1)],
    ),
    (
        "an alarm about a place that a crash has lost",
        "The confirmation ended the alarms of known places only, so this one stayed for a month.",
        f"{_FEATURE}.guard:LoginWatch._clear_alarms",
        does_nothing,
        "W",
        [
            _BEGIN,
            _logs_in(1, 1.0),
            _logs_in(2, 12.0),
            Step("kill", wait=4.0, seconds=0.1),
            Step("account is confirmed", wait=3.0, number=1),
        ],
    ),
    (
        "a confirmation before a crash",
        "Its answer came, and the next process asked for it again.",
        f"{_FEATURE}.guard:LoginWatch._confirm",
        _confirms_in_memory,
        "W",
        [
            _BEGIN,
            _logs_in(1, 1.0),
            _logs_in(2, 12.0),
            Step("account is confirmed", number=1),
            Step("kill", wait=3.0, seconds=0.1),
        ],
    ),
    (
        "a clock that is set while an account is new",
        "The account counted as known for long, and its next place was an alarm.",
        f"{_FEATURE}.places:Accounts.move",
        does_nothing,
        "W",
        [_BEGIN, _logs_in(1, 3.3), Step("clock", set=300.0), _logs_in(2, 3.0)],
    ),
)


def _login(chosen: random.Random) -> Step:
    return _logs_in(chosen.randint(1, len(ADDRESSES)), 1.0)


@dataclass(frozen=True)
class _World:
    """What the daemon may know of the account, and its alarms. A place is a wide network.

    The account is at home at ``homes``, and not at ``strange`` places. It became known between ``earliest``
    and ``latest`` (monotonic seconds), both infinite if it has no place.
    """

    homes: frozenset[str] = frozenset()
    strange: frozenset[str] = frozenset()
    alarms: frozenset[str] = frozenset()
    earliest: float = inf
    latest: float = inf

    @property
    def is_new(self) -> bool:
        """Whether the account has no place."""
        return not self.homes | self.strange

    def __str__(self) -> str:
        named = {"at home": self.homes, "elsewhere": self.strange, "alarms": self.alarms}
        return ", ".join(f"{name}: {' '.join(sorted(found)) or '-'}" for name, found in named.items())


_Worlds = frozenset[_World]
_Logins = Sequence[tuple[float, str]]
"""Logins: when the daemon heard each (monotonic seconds), and its place."""


class Accounts(Feature):
    """An account that logs in from several networks, and an administrator who confirms it.

    Invariant W: the daemon has a place for each login that AMI reports. Until the account is known for some
    seconds, it is at home at a new place. Later it is elsewhere there, which an alarm says until the account
    is confirmed. A restart forgets only what was too new to be saved, and no answered confirmation.

    What a killed process had saved, and how old the account was by a clock that was set, is known only within
    bounds. So there may be several worlds, and the daemon must be in one of them.
    """

    kind = "accounts"
    steps: ClassVar[Kinds] = {
        "account logs in": _login,
        "account is confirmed": times("account is confirmed", 1),
    }
    faults = _FAULTS

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self._worlds: _Worlds = frozenset({_World()})
        self._ever = self._worlds
        self._past: list[tuple[float, _Worlds]] = []  # earlier worlds of this process, and when each ended
        self._waiting: list[tuple[float, str]] = []  # logins that are not in the worlds yet
        self._heard = set[str]()  # the places of this process's logins
        self._sent: dict[str, float] = {}  # by address, when its first login was sent, if AMI was read then
        self._set_at: list[float] = []  # when the clock was set (monotonic seconds)
        self._day, self._days = -1, 0  # of the latest login, and how often it was another one than before
        self._asked = 0  # the number of confirmations that this process was asked for
        self._confirmed: list[float] = []  # when it carried each out (monotonic seconds)
        self._recorded = -inf  # up to when the database has the places, because of an answer
        self._loses_power = False

    def replaced(self) -> Sequence[Replaced]:
        """Return how long an account is learned, and what builds the feature: it gets listeners then."""
        learned: list[Replaced] = [
            (owner, "LEARN_FOR", LEARNED_FOR) for owner in (account_places, account_guard)
        ]
        return [*learned, (account_guard, "build", self._build)]

    def _build(self, given: Given) -> LoginWatch:
        given.effects._logins = (*given.effects._logins, self)
        given.side.common.listeners.append(self)
        return _BUILD(given)

    # -- the steps

    def on_step(self, step: Step) -> None:
        """Record that the clock is set, that the power fails, or that a login is sent."""
        now, manager = self.host.schedule.mono, self.host.managers[PBX]
        self._loses_power = step.kind == "power loss"
        if abs(step.set) > CLOCK_STEP:
            self._set_at.append(now)
        sender = step.act.sender if step.act is not None else ""
        # If the kernel drops a login, its address has no contact, and a later login is the first one.
        if sender in ADDRESSES and sender not in manager.addresses and manager.has_reader:
            self._sent[sender] = now

    def account_is_confirmed(self, _: Step) -> None:
        """Confirm all places of the account."""
        number = self._asked
        self._asked += 1

        def then(answer: Any) -> None:
            if isinstance(answer, list):  # not Unrecorded: the database has it
                self._recorded = max(self._recorded, self._confirmed[number])

        self.stage.process.ask("account_confirm", then, account=ACCOUNT)

    # -- what the daemon hears

    def on_login(self, login: Login) -> None:
        """Record a login of the account."""
        if account_of(login.friend) != (PBX, ACCOUNT):
            return
        schedule, place = self.host.schedule, _place(ip_network(login.friend.address))
        self._heard.add(place)
        self._waiting.append((schedule.mono, place))
        day = int(schedule.wall // DAY)
        self._days += day != self._day
        self._day = day

    def on_fact(self, fact: object) -> None:
        """Record that the daemon confirms the account. The latest logins may be graded before or after."""
        if not isinstance(fact, Changed) or fact.do != "account_confirm":
            return
        now = self.host.schedule.mono
        self._follow(now - GRADED_WITHIN)
        late, self._waiting = self._waiting, []
        during, after = frozenset[_World](), frozenset[_World]()
        for number in range(len(late) + 1):
            confirmed = _confirmed(self._logged_in(self._worlds, late[:number]))
            during |= confirmed
            after |= self._logged_in(confirmed, late[number:])
        self._become(during, now)
        self._become(after, now)
        self._confirmed.append(-inf if late else now)

    def _follow(self, until: float) -> None:
        """Grade the logins that the daemon heard up to a time."""
        while self._waiting and self._waiting[0][0] <= until:
            login = self._waiting.pop(0)
            self._become(self._logged_in(self._worlds, [login]), login[0])

    def _become(self, worlds: _Worlds, now: float) -> None:
        if worlds != self._worlds:
            self._past.append((now, self._worlds))
            self._worlds = worlds
            self._ever |= worlds

    def _logged_in(self, worlds: _Worlds, logins: _Logins) -> _Worlds:
        for at, place in logins:
            worlds = frozenset(after for world in worlds for after in self._graded(world, at, place))
        return worlds

    def _graded(self, world: _World, at: float, place: str) -> Iterator[_World]:
        """Yield the worlds after a login: two if nobody knows on which side of the limit the age is."""
        if world.is_new:
            yield replace(world, homes=frozenset({place}), earliest=at, latest=at)
            return
        # An account that a restart has loaded was known by then.
        latest = self.stage.process.began if world.latest == inf else world.latest
        world = replace(world, latest=latest)
        if place in world.homes:
            yield world
            return
        elsewhere = replace(world, strange=world.strange | {place}, alarms=world.alarms | {place})
        if place in world.strange:
            yield elsewhere
            return
        slack = _NEARLY + self.stage.drift
        is_unclear = any(0.0 <= one - at < GRADED_WITHIN for one in self._set_at)
        if is_unclear or at - latest - slack < LEARNED_FOR:
            yield replace(world, homes=world.homes | {place})
        if is_unclear or at - world.earliest + slack >= LEARNED_FOR:
            yield elsewhere

    # -- what a process leaves

    def on_end(self, before: Path, after: Path) -> None:
        """Record what the database of the next process may have. The feature has no files."""
        now, process = self.host.schedule.mono, self.stage.process
        self._follow(now)
        works = process.store.best_effort.takes_writes and not self.host.disk.error
        if works and not self._loses_power:
            lately = now - SAVED_WITHIN
            saved = lately if process.is_over else now - PLACES_SAVED_WITHIN  # a stop saves all
            known, alarmed = self._since(max(self._recorded, saved)), self._since(lately)
        else:
            known = alarmed = self._ever
        worlds = {replace(one, alarms=other.alarms) for one in known for other in alarmed}
        if self._set_at:
            worlds = {one if one.is_new else replace(one, earliest=-inf, latest=inf) for one in worlds}
        self._worlds = frozenset(worlds)
        self._ever |= self._worlds
        self._past, self._confirmed, self._asked, self._recorded = [], [], 0, -inf
        self._heard.clear()
        self._sent.clear()

    def _since(self, time: float) -> _Worlds:
        """Return the present worlds, and those that ended after a time (monotonic seconds)."""
        return self._worlds.union(*(worlds for end, worlds in self._past if end > time))

    # -- what must hold

    def violations(self) -> Iterator[Violation]:
        """Yield what the daemon has not heard, and what it knows if that is in no world."""
        process, manager = self.stage.process, self.host.managers[PBX]
        for address, at in self._sent.items():
            is_delivered = manager.has_reader and manager.read_since <= at and address in manager.addresses
            if is_delivered and (place := _place(ip_network(address))) not in self._heard:
                yield Violation("W", f"AMI reported a login at {place}, which the daemon has not heard")
        self._follow(self.host.schedule.mono)
        if self._days >= OWN_DAYS:  # it may be at home wherever it was elsewhere
            return
        places = process.request("account", account=ACCOUNT)["places"]
        alarms = process.side.common.alarms.records()
        subjects = [one.subject for one in alarms if one.code is AccountAlarmCode.ACCOUNT_ELSEWHERE]
        seen = _World(
            _places(one for one in places if one["home"]),
            _places(one for one in places if not one["home"]),
            frozenset(one.removeprefix(_SUBJECT) for one in subjects if one.startswith(_SUBJECT)),
        )
        worlds = {str(one) for one in self._worlds}
        if str(seen) not in worlds:
            yield Violation("W", f"the daemon has {seen}; right is {' or '.join(sorted(worlds))}")


def _confirmed(worlds: _Worlds) -> _Worlds:
    nothing = frozenset[str]()
    return frozenset(
        replace(one, homes=one.homes | one.strange, strange=nothing, alarms=nothing) for one in worlds
    )


def _place(network: Network) -> str:
    """Return the wide network around an IPv4 address or network, as the subject of an alarm has it."""
    return str(network.supernet(new_prefix=16))


def _places(found: Iterable[Any]) -> frozenset[str]:
    return frozenset(_place(ip_network(one["network"])) for one in found)
