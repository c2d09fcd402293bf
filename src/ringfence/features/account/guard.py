"""The watch of logins as a part of the daemon: it locates new places, keeps them, and raises the alarm.

A login at a known place costs a look-up. The location of a new place is read from the databases of ``[geo]``
in a thread, so its grade follows some milliseconds after the login. Until then its address is a friend: an
office whose network has changed at night must not have a stranger's limits for a moment.
"""

import asyncio
import shlex
from collections import deque
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ringfence.alarm_codes import Alarm, AlarmCode
from ringfence.alarms import BEGAN, AlarmEvent
from ringfence.ban_facts import ClockSet
from ringfence.bans.restore import set_since_last_run
from ringfence.config.schema import Settings
from ringfence.control_server import Handler
from ringfence.detect.friends import account_of
from ringfence.detect.judgement import Decision, Login
from ringfence.detect.rules import Rule
from ringfence.features.account.alarms import AccountAlarmCode
from ringfence.features.account.places import DAY, LEARN_FOR, Account, Accounts, Grade, Key, Place, rows_of
from ringfence.features.account.settings import AccountSettings, Elsewhere
from ringfence.features.account.table import AccountTable, row_of
from ringfence.guard.feature import Fact, Feature, Given, Number, Section
from ringfence.guard.firewall_side import FirewallSide
from ringfence.guard.process import every
from ringfence.guard.request_fields import only, read, text
from ringfence.store.database import Store
from ringfence.values.ban import Scope
from ringfence.values.event import short_account
from ringfence.values.network import Address, format_network, prefix_of
from ringfence.values.text import printable, rfc3339

MOST_WAITING = 4_096
"""The maximum number of logins at new places that wait for their location. Phones log in again soon."""
LASTS = 30 * DAY
"""Seconds after the latest login elsewhere until its alarm clears, unless somebody confirms the place."""
SAVE_EVERY = 60.0
_LOCATED_AT_ONCE = 200
_AT = " at "  # between account and place in the subject of an alarm
_MOST_NAME = 256  # characters, as in the request ``why_account``

_ACCOUNT = {"account": text(_MOST_NAME, 1)}
REQUESTS = {"account": read(_ACCOUNT, page=_ACCOUNT), "account_confirm": only(_ACCOUNT)}


BLOCKED_FOR = 7 * DAY
"""The length (seconds) of a ban for a login elsewhere. A later login there begins another one."""

BLOCK = Rule(
    "elsewhere",
    "a right password from a place that has nothing to do with the account's earlier logins",
    counts=frozenset(),
    attempts=1,
    window=DAY,
    ban=(BLOCKED_FOR,),
    scope=Scope.SIP,
)
"""The rule of these bans. No attempts count for it, so it is none of the detector's rules."""


class _Arrival(NamedTuple):
    """A login, and its account."""

    key: Key
    login: Login

    @property
    def address(self) -> Address:
        """The address of the login."""
        return self.login.friend.address


class LoginWatch(Feature):
    """Keeps the places where accounts log in; ``elsewhere`` is what follows from a login elsewhere."""

    def __init__(self, side: FirewallSide, elsewhere: Elsewhere) -> None:
        self._side = side
        self._clock = side.common.clock
        self._table = AccountTable(side.common.store.connection)
        self._best_effort = side.common.store.best_effort
        step = set_since_last_run(side.common.store.records, self._clock)
        now = self._clock.wall() - step  # by the clock of the recorded times, so that none is too old
        self._accounts = Accounts(self._best_effort.read(self._table.load, [], now))
        if step:
            self._accounts.move(step)
        self._waiting: deque[_Arrival] = deque()
        self._arrived = asyncio.Event()
        self._databases: object = None  # those in which the unknown locations of places were looked up
        self._unlocated: deque[tuple[Key, Place]] = deque()
        self._elsewhere = elsewhere
        self._friends = side.exempt.friends.friends
        self._bar_all()

    # -- logins ------------------------------------------------------------------------------------------

    def on_login(self, login: Login) -> None:
        """Record a login at a known place, or queue one at a new place until its location is known."""
        arrival = _Arrival(account_of(login.friend), login)
        if not self._visits(arrival) and len(self._waiting) < MOST_WAITING:
            self._waiting.append(arrival)
            self._arrived.set()

    def _visits(self, arrival: _Arrival) -> bool:
        """Record a login at a known place, and return True; return False if the place is new."""
        key, now, guessed = arrival.key, self._clock.wall(), arrival.login.guessed
        place = self._accounts.visit(key, arrival.address, now, guessed=guessed)
        if place is None:
            return False
        if not place.home:
            self._report(key, place)
            self._restrict(key, place.address, proven=arrival.login.proven)
        elif self._friends.barred:
            self._friends.barred.pop((key, place.network), None)
        return True

    def jobs(self) -> list[Coroutine[None, None, None]]:
        """Return the coroutines that grade logins at new places, and that save the places."""
        alarms = self._side.common.alarms
        self._bar_all()  # by now, the friends of the database are known
        self._save()  # by now, the clock is recorded: after a crash, no start would move the times again
        return [self._grade_arrivals(), every(SAVE_EVERY, "account", self.update, alarms)]

    async def _grade_arrivals(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._waiting:
                some = [self._waiting.popleft() for _ in range(min(len(self._waiting), _LOCATED_AT_ONCE))]
                try:
                    await self._grade(some)
                except Exception as error:  # noqa: BLE001 - it becomes an alarm; these phones log in again
                    text = f"logins were not graded: {type(error).__name__}: {error}"
                    self._side.common.alarms.activate(AlarmCode.TASK_FAILED, "account", text)

    async def _grade(self, arrivals: list[_Arrival]) -> None:
        """Look up the locations of logins at new places, and grade these.

        Before that, look up those of their accounts' known places, if they are unknown: a database may be
        new, and a home is no foreign country.
        """
        await self._locate(self._accounts.unlocated({one.key for one in arrivals}))
        locations = await self._side.common.locator.of([one.address for one in arrivals])
        for arrival, location in zip(arrivals, locations, strict=True):
            if self._visits(arrival):  # the phone has logged in again meanwhile
                continue
            key, now, guessed = arrival.key, self._clock.wall(), arrival.login.guessed
            place = self._accounts.add(key, arrival.address, location, now, guessed=guessed)
            self._report(key, place)
            if not place.home:
                self._restrict(key, place.address, proven=arrival.login.proven)

    def _report(self, key: Key, place: Place) -> None:
        """Activate the alarm about a login elsewhere, or show a login in a new network in ``events``.

        A login after guesses has an alarm already (``password.guessed``).
        """
        if place.grade is Grade.ELSEWHERE:
            alarm = alarm_of(key, place, self._accounts)
            self._side.common.alarms.activate(alarm.code, alarm.subject, alarm.text, LASTS)
        elif place.grade is Grade.NEW_NETWORK:
            # This is no alarm: it is shown once, and nobody is notified.
            name = printable(key[1])
            subject = f"{name} at {format_network(place.network)}"
            text = f"{name} logs in from {_where(place)}, a new network of its country"
            event = AlarmEvent(AccountAlarmCode.ACCOUNT_NETWORK, subject, text, BEGAN, self._clock.wall())
            self._side.common.followers.on_fact(event)

    # -- strangers and bans ------------------------------------------------------------------------------

    def _bar(self, key: Key, address: Address) -> None:
        """Let an account make no friends at a place. An address that has other reasons stays a friend."""
        self._side.exempt.friends.on_estranged(self._friends.bar(key, prefix_of(address)))

    def _bar_all(self) -> None:
        """Bar each account where it is not at home, and nowhere else, if the configuration asks for it."""
        self._friends.barred.clear()
        if self._elsewhere is not Elsewhere.NOTIFY:
            for key, place in self._accounts.strange():
                self._bar(key, place.address)

    def _restrict(self, key: Key, address: Address, *, proven: bool) -> None:
        """Restrict an address where an account is not at home, as the configuration asks for.

        A ban would also drop the packets of other phones there. So no address is banned that is exempt or a
        friend, or in whose prefix any account is at home. Nor is one from which the login may not have come
        (``proven``): somebody with a password could have any address banned.
        """
        if self._elsewhere is Elsewhere.NOTIFY:
            return
        self._bar(key, address)
        detector, now, registry = self._side.detector, self._clock.mono(), self._side.exempt.friends
        subject = detector.subject_of(address)
        spared = detector.exempt.overlaps(subject) or detector.friends.any_in(subject)
        if self._elsewhere is not Elsewhere.BLOCK or spared or self._accounts.is_home(address) or not proven:
            return
        if registry.startup.for_bans and not detector.is_banned(address, Scope.SIP, now):
            decision = Decision(subject, BLOCK, (), now, Scope.SIP, BLOCKED_FOR)
            self._side.kernel.enforcer.carry_out(decision)

    def _unban(self, place: Place) -> None:
        """End the bans of a place that followed from logins elsewhere."""
        enforcer = self._side.kernel.enforcer
        keys = enforcer.ledger.overlapping(place.network, self._clock.wall())
        records = [(key, enforcer.ledger.get(key)) for key in keys]
        mine = [key for key, record in records if record is not None and record.rule == BLOCK.name]
        enforcer.apply(enforcer.book.unban_with_retry(mine))

    # -- the database ------------------------------------------------------------------------------------

    def on_fact(self, fact: Fact) -> None:
        """Apply a new configuration, or a change of the clock."""
        if isinstance(fact, Settings):
            self._elsewhere = fact.of(AccountSettings).elsewhere
            self._bar_all()
        elif isinstance(fact, ClockSet):
            self._accounts.move(fact.seconds)

    async def update(self) -> None:
        """Look up some unknown locations of places, and save what has changed.

        When a database has changed, all unknown locations are looked up again.
        """
        locator = self._side.common.locator
        databases = await locator.state()
        if databases != self._databases:
            self._databases, self._unlocated = databases, deque(self._accounts.unlocated())
        some = [self._unlocated.popleft() for _ in range(min(len(self._unlocated), _LOCATED_AT_ONCE))]
        await self._locate(some)
        if not self._best_effort.waiting_calls(self._table.save):  # on a full disk, the next has all changes
            self._save()

    async def _locate(self, some: Sequence[tuple[Key, Place]]) -> None:
        """Look up the locations of places, and set them."""
        locations = await self._side.common.locator.of([place.address for _, place in some])
        for (key, place), location in zip(some, locations, strict=True):
            self._accounts.locate(key, place, location)

    def _save(self) -> None:
        changed = self._accounts.take_changed()
        if changed:
            rows = [row_of(key, account) for key, account in changed if account is not None]
            dropped = [key for key, account in changed if account is None]
            self._best_effort.write(self._table.save, rows, dropped)

    def finish(self) -> None:
        """Queue the changed places for the database, because the daemon stops."""
        self._save()

    # -- requests and numbers ----------------------------------------------------------------------------

    def handlers(self) -> Mapping[str, Handler]:
        """Return the handlers of the feature's requests on the control socket, by the request's name."""
        return {"account": self._answer, "account_confirm": self._confirm}

    def section(self) -> Section:
        """Return the numbers of accounts and of their places."""
        return Section(
            [
                Number("accounts", "Accounts whose places are kept.", len(self._accounts)),
                Number("account_places", "Places where these accounts logged in.", self._accounts.places),
            ]
        )

    def _answer(self, request: Mapping[str, Any]) -> object:
        name = short_account(request["account"])
        return as_json(name, self._accounts.named(name), self._clock.wall())

    def _confirm(self, request: Mapping[str, Any]) -> object:
        """Confirm the places of an account, clear its alarms, and return the confirmed places."""
        name = short_account(request["account"])
        confirmed = self._accounts.confirm(name)
        for key, place in confirmed:
            subject = _subject(self._accounts.first_elsewhere(key, place), place)
            self._side.common.alarms.clear(AccountAlarmCode.ACCOUNT_ELSEWHERE, subject)
            self._friends.barred.pop((key, place.network), None)
            self._unban(place)
        self._clear_alarms(name)
        self._save()
        return [json_of(key, place) for key, place in confirmed]

    def _clear_alarms(self, name: str) -> None:
        """End all alarms about logins of the account ``name`` elsewhere.

        Such an alarm may be about a place that is a home by now, or whose country is known by now.
        """
        alarms = self._side.common.alarms
        for record in alarms.records():
            account, _, _ = record.subject.rpartition(_AT)
            if record.code is AccountAlarmCode.ACCOUNT_ELSEWHERE and account == printable(name):
                alarms.clear(record.code, record.subject)


def alarm_of(key: Key, place: Place, accounts: Accounts) -> Alarm:
    """Return the alarm about a login of the account ``key`` of ``accounts`` at ``place``, which is elsewhere.

    A person who travels in a country has many addresses there, so a country is one alarm for each account. If
    the country is unknown, the wide network is one alarm for all accounts, with the first one in its subject.
    """
    name, first, new = printable(key[1]), key, "a country where it never was"
    if not place.country:
        first, new = accounts.first_elsewhere(key, place), "a network that nobody here used before"
        new += f", except {printable(first[1])}" if first != key else ""
    text = (
        f"{name} logs in from {_where(place)}, {new}: if this is not its owner, change the password; "
        f"otherwise: ringfence account {shlex.quote(name)} confirm"
    )
    return Alarm(AccountAlarmCode.ACCOUNT_ELSEWHERE, _subject(first, place), text)


def _subject(first: Key, place: Place) -> str:
    """Return the subject of the alarm about a place; ``first`` is the account with which it began."""
    return f"{printable(first[1])}{_AT}{printable(place.country) or format_network(place.wide)}"


def _where(place: Place) -> str:
    known = ", ".join(filter(None, (printable(place.country), printable(place.asn))))
    return f"{place.address} ({known})" if known else str(place.address)


# -- the places of an account, as JSON
#
# The keys are an interface for scripts: keys may be added, but not changed or removed.


def as_json(name: str, accounts: Iterable[tuple[Key, Account]], now: float) -> dict[str, Any]:
    """Return the places of the account ``name``, at each Asterisk that has it, and until when it is learned.

    ``now`` is in seconds since the epoch.
    """
    accounts = [*accounts]
    learns = max((account.since + LEARN_FOR for _, account in accounts), default=0.0)
    return {
        "account": printable(name),
        "learns_until": rfc3339(learns) if learns > now else None,
        "places": [json_of(key, place) for key, place in rows_of(accounts)],
    }


def json_of(key: Key, place: Place) -> dict[str, Any]:
    """Return a place of an account as a JSON object; hostile text is made printable."""
    return {
        "asterisk": printable(key[0]),
        "network": format_network(place.network),
        "address": str(place.address),
        "country": printable(place.country),
        "asn": printable(place.asn),
        "grade": str(place.grade),
        "home": place.home,
        "since": rfc3339(place.since),
        "last": rfc3339(place.last),
        "days": place.days,
        "logins": place.times,
    }


def build(given: Given) -> LoginWatch:
    """Return the part of the daemon that watches where accounts log in."""
    return LoginWatch(given.side, given.reloader.settings.of(AccountSettings).elsewhere)


def _recorded(store: Store, arguments: Mapping[str, Any], now: float) -> dict[str, Any]:
    name = short_account(arguments["account"])
    accounts = AccountTable(store.connection).load(now)
    return as_json(name, [one for one in accounts if one[0][1] == name], now)


RECORDED = {"account": _recorded}
