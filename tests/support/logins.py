"""Former logins in a database, and a simulated year of logins: offices, people on the road, and thefts.

The networks are invented, and only their shape matters: carriers have wide networks (/16), of which a DSL
customer gets another address each night, from the pools of its region. Mobile phones leave by a few /24s. In
other countries there are hotels and hosters. The year is the same for the same seed.
"""

import time
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from random import Random

from attrs import define, frozen
from tests.support.clock import SetClock

from ringfence.alarms import BEGAN, AlarmEvent, Alarms
from ringfence.features.account.guard import LASTS, alarm_of
from ringfence.features.account.places import DAY, Accounts, Grade
from ringfence.features.account.table import AccountTable, row_of
from ringfence.store.database import Store

ACCOUNTS, OFFICES, AT_HOME, TRAVELLERS, MOVES, THEFTS = 200, 12, 40, 10, 16, 20
DAYS = 365
FIRST_THEFT = 45
ABROAD = ("FR", "IT", "ES", "AT", "CH", "PL", "NL", "GB", "US", "TR", "SE", "CZ")
THIEVES = ("RU", "CN", "VN", "BR", "NG", "RO", "ID", "PS", "SC", "BG")
BEGAN_AT = 1_700_006_400.0
_TRIP_EVERY = 14.0
"""Mean days between two trips of a traveller."""

FOREIGN, DOMESTIC, MOBILE = "another country", "another network of the country", "the same mobile carrier"
KINDS = FOREIGN, DOMESTIC, MOBILE


def record_home(
    folder: Path, address: str, seconds: float, *names: str, location: Mapping[str, str] | None = None
) -> None:
    """Record in a guard's database that accounts of its PBX first logged in there, so many seconds ago.

    ``location`` is that of the address, if it is known.
    """
    accounts = Accounts()
    for name in names:
        accounts.add(("pbx", name), ip_address(address), location or {}, time.time() - seconds)
    rows = [row_of(*one) for name in names for one in accounts.named(name)]
    with Store.open(folder / "ringfence.db", owner=True) as store:
        AccountTable(store.connection).save(rows)


@frozen
class Carrier:
    """An operator of networks: its country, its autonomous system, and its wide networks (/16)."""

    country: str
    asn: str
    wide: tuple[int, ...]


@define
class Person:
    """An account: the pools (wide networks) from which its DSL line gets addresses, and its habits."""

    name: str
    line: int
    mobile: Carrier | None = None
    travels: tuple[str, ...] = ()
    away_until: int = -1
    away_in: str = ""


@define
class Line:
    """A DSL line: its carrier, the pools of its region, and the address of today."""

    carrier: Carrier
    pools: tuple[int, ...]
    address: IPv4Address | None = None


@frozen
class Login:
    """A login: the day, the account, the address, and the kind of theft; "" if it is its owner's."""

    day: int
    account: str
    address: IPv4Address
    theft: str = ""


class Year:
    """The networks and the people of one simulated year. Each iteration yields its logins again."""

    def locate(self, address: IPv4Address) -> Mapping[str, str]:
        """Return the location of an address, as a database of countries and networks has it."""
        owner = self._owners[int(address) >> 16]
        return {"country": owner.country, "asn": owner.asn, "organisation": ""}

    def __init__(self, seed: int = 1, *, thefts: bool = True) -> None:
        self.seed, self.thefts = seed, thefts
        self.carriers: list[Carrier] = []
        self._next = 20 * 256  # the next free wide network
        self.dsl = [self._carrier("DE", f"AS{3320 + n}", wide) for n, wide in enumerate((40, 24, 12, 8))]
        self.mobile = [self._carrier("DE", f"AS{6805 + n}", wide) for n, wide in enumerate((4, 3, 2))]
        self.hosters = [self._carrier("DE", f"AS{24940 + n}", 4) for n in range(5)]
        self.hotels = {
            name: [self._carrier(name, f"AS{100 + n}{name}", 20) for n in range(4)] for name in ABROAD
        }
        self.thieves = [self._carrier(name, f"AS{200 + n}{name}", 10) for name in THIEVES for n in range(2)]
        self.successor = self._carrier("DE", "AS64500", 8)
        self._owners = {wide: one for one in self.carriers for wide in one.wide}

    def _carrier(self, country: str, asn: str, size: int) -> Carrier:
        made = Carrier(country, asn, tuple(range(self._next, self._next + size)))
        self._next += size
        self.carriers.append(made)
        return made

    def __iter__(self) -> Iterator[Login]:
        """Yield the logins, in order of time."""
        chance = Random(self.seed)  # noqa: S311 - no secret
        lines = [self._line(chance) for _ in range(OFFICES + AT_HOME)]
        people = [Person(f"{200 + n}", self._line_of(n)) for n in range(ACCOUNTS)]
        for one in people[::4]:
            one.mobile = chance.choice(self.mobile)
        for one in chance.sample(people, TRAVELLERS):
            one.mobile = one.mobile or chance.choice(self.mobile)
            one.travels = tuple(chance.sample(ABROAD, 3))
        moves = dict.fromkeys(chance.sample(range(40, DAYS), MOVES))
        thefts = self._thefts(chance, people)
        for day in range(DAYS):
            if day in moves:  # another carrier, so an autonomous system that is new at this place
                lines[chance.randrange(len(lines))] = self._line(chance)
            if day == 200:
                self._renumber(lines, chance)
            if day == 260:
                self._merge(lines)
            for line in lines:
                line.address = self._somewhere(chance, line.pools)
            for person in people:
                yield from self._day_of(person, lines, day, chance)
            yield from (one for one in thefts if one.day == day and self.thefts)

    def _line_of(self, number: int) -> int:
        """Return the line of the account with this number: four of five are in an office."""
        return number % OFFICES if number < ACCOUNTS - AT_HOME else OFFICES + number - (ACCOUNTS - AT_HOME)

    def _line(self, chance: Random) -> Line:
        carrier = chance.choices(self.dsl, [5, 3, 2, 1])[0]
        return Line(carrier, tuple(chance.sample(carrier.wide, 4)))

    @staticmethod
    def _somewhere(chance: Random, wide: tuple[int, ...]) -> IPv4Address:
        return IPv4Address(chance.choice(wide) << 16 | chance.randrange(1, 65_535))

    @staticmethod
    def _mobile_address(chance: Random, carrier: Carrier) -> IPv4Address:
        """Return an address of the few /24s by which the phones of a mobile carrier leave."""
        wide = chance.choice(carrier.wide)
        return IPv4Address(wide << 16 | chance.randrange(4) << 8 | chance.randrange(1, 255))

    @staticmethod
    def _renumber(lines: list[Line], chance: Random) -> None:
        """The lines of the first office get other pools of their carrier."""
        lines[0].pools = tuple(chance.sample(lines[0].carrier.wide, 4))

    def _merge(self, lines: list[Line]) -> None:
        """The smallest carrier is sold, and its customers get addresses of the buyer's network."""
        for line in lines:
            if line.carrier is self.dsl[3]:
                line.carrier, line.pools = self.successor, self.successor.wide[:4]

    def _day_of(self, person: Person, lines: list[Line], day: int, chance: Random) -> Iterator[Login]:
        if person.travels and day > person.away_until and chance.random() < 1 / _TRIP_EVERY:
            usual = chance.random() < 0.9
            person.away_in = chance.choice(person.travels if usual else ABROAD)
            person.away_until = day + chance.randrange(1, 4)
        if day <= person.away_until:
            hotel = chance.choice(self.hotels[person.away_in])
            yield Login(day, person.name, self._somewhere(chance, hotel.wide))
        else:
            home = lines[person.line].address
            if home is not None:
                yield Login(day, person.name, home)
        if person.mobile is not None and chance.random() < 0.5:  # abroad too: its traffic goes home first
            yield Login(day, person.name, self._mobile_address(chance, person.mobile))

    def _thefts(self, chance: Random, people: list[Person]) -> list[Login]:
        found = []
        for kind in KINDS:
            mobile = [one for one in people if one.mobile is not None]
            for victim in chance.sample(mobile if kind == MOBILE else people, THEFTS):
                day = chance.randrange(FIRST_THEFT, DAYS)
                if kind == FOREIGN:
                    address = self._somewhere(chance, chance.choice(self.thieves).wide)
                elif kind == DOMESTIC:
                    address = self._somewhere(chance, chance.choice(self.hosters).wide)
                else:
                    address = self._mobile_address(chance, victim.mobile or self.mobile[0])
                found.append(Login(day, victim.name, address, kind))
        return found


@frozen
class Outcome:
    """What a year of logins leads to.

    ``alarms`` is the number of alarms that the owners' logins began. By kind of theft: ``alarmed`` is how
    many thefts began an alarm, ``listed`` how many were an alarm or a new network.
    """

    alarms: int
    alarmed: Mapping[str, int]
    listed: Mapping[str, int]

    @property
    def weekly(self) -> float:
        """The number of alarms in a week."""
        return self.alarms / (DAYS / 7)


def play(year: Year, *, located: bool) -> Outcome:
    """Grade all logins of a year, with or without a database of locations."""
    now = BEGAN_AT
    began: list[AlarmEvent] = []

    class Listener:
        def on_fact(self, fact: AlarmEvent) -> None:
            if fact.change == BEGAN:
                began.append(fact)

    clock = SetClock(wall=lambda: now, mono=lambda: now)
    alarms, accounts = Alarms(clock, [Listener()]), Accounts()
    own = 0
    alarmed, listed = dict.fromkeys(KINDS, 0), dict.fromkeys(KINDS, 0)
    for login in year:
        now = BEGAN_AT + login.day * DAY
        key, before = ("pbx", login.account), len(began)
        place = accounts.visit(key, login.address, now)
        new = place is None
        if place is None:
            place = accounts.add(key, login.address, year.locate(login.address) if located else {}, now)
        if place.grade is Grade.ELSEWHERE and not place.home:
            alarm = alarm_of(key, place, accounts)
            alarms.activate(alarm.code, alarm.subject, alarm.text, LASTS)
        raised = len(began) > before
        if login.theft:
            alarmed[login.theft] += raised
            listed[login.theft] += raised or (new and place.grade is Grade.NEW_NETWORK)
        else:
            own += raised
    return Outcome(own, alarmed, listed)
