"""The places where accounts log in, and the grade of each login from a new one.

A *place* of an account is a prefix (a /24, or a /48 of IPv6) from which it logged in. The first login from a
new place gets a grade:

- ``learned``: the account is new. It is only learned for ``LEARN_FOR`` from its first login.
- ``near``: the place is in an autonomous system and a country of the account, as after a DSL reconnect.
- ``new network``: the country is one of the account, or another account of this PBX is at home there.
- ``elsewhere``: the country is none of the account. If the country is unknown, the place shares no wide
  network (a /16, or a /32 of IPv6) with a place of any account.
- ``after guesses``: wrong passwords from that address came before.

The account is *at home* at places with one of the first three grades, and later logins are compared with
these. Elsewhere, it is at home when the administrator confirms it, or when it was seen in that country on
``OWN_DAYS`` days. After guesses, only a confirmation counts. A country is compared before a network: many
autonomous systems have networks in several countries.

The countries that nobody knows are together one country, "". It is an account's own if the account was seen
on ``OWN_DAYS`` days in networks that have nothing to do with its others: it is on the road.

Times are wall-clock seconds, because places persist across restarts. Bounds: ``MOST_ACCOUNTS`` accounts and
``MOST_PLACES`` places in all, of which those of the account that logged in longest ago are dropped first;
``MOST_OF_ACCOUNT`` places and ``MOST_COUNTRIES`` countries of each account, of which those where it is not at
home are dropped first, then those seen longest ago. A place is forgotten after ``KEEP``. So only somebody
who has a password can add to it, at the cost of one of the account's homes at most.
"""

import enum
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator

from attrs import Factory, define

from ringfence.detect.sessions import remember
from ringfence.values.location import Location
from ringfence.values.network import BITS, Address, Network, is_one_host, prefix_of

DAY = 86_400.0
LEARN_FOR = 30 * DAY
OWN_DAYS = 5
KEEP = 366 * DAY
MOST_ACCOUNTS = 10_000
MOST_OF_ACCOUNT = 50
MOST_PLACES = 100_000
MOST_COUNTRIES = 32
MOST_FIRST = 4_096
SAVE_AFTER = 3_600.0
"""Seconds after which a later login at a place is written to the database again.

One on a new day, or one that changes the grade or makes the place a home, is written at once.
"""

_PREFIX_BITS = {4: 8, 6: 80}
_WIDE_BITS = {4: 16, 6: 96}


class Grade(enum.StrEnum):
    """How the first login from a place compares with the earlier ones of its account."""

    LEARNED = "learned"
    NEAR = "near"
    NEW_NETWORK = "new network"
    ELSEWHERE = "elsewhere"
    AFTER_GUESSES = "after guesses"
    CONFIRMED = "confirmed"


_AT_HOME = frozenset({Grade.LEARNED, Grade.NEAR, Grade.NEW_NETWORK, Grade.CONFIRMED})

Key = tuple[str, str]
"""The name of an Asterisk, and an account there."""


@define(eq=False)
class Place:
    """A prefix from which an account logged in.

    ``address`` is the latest address in it. ``country`` and ``asn`` are "" if they are unknown. ``home``: the
    account is at home here. ``since`` and ``last`` are the times of the first and the last login (seconds
    since the epoch), ``times`` is the number of logins, ``days`` the number of days (UTC) with one. ``day``
    is the latest of these days. ``saved`` is the time of the last login that the database has.
    """

    address: Address
    country: str
    asn: str
    grade: Grade
    home: bool
    since: float
    last: float
    times: int = 0
    days: int = 0
    day: int = -1
    saved: float = 0.0

    @property
    def network(self) -> Network:
        """The prefix of the place."""
        return prefix_of(self.address)

    @property
    def wide(self) -> Network:
        """The wide network of the place."""
        return self.network.supernet(prefixlen_diff=self.network.prefixlen - _wide_length(self.address))


@define(eq=False)
class Country:
    """A country from which an account logged in; ``own``: it is at home there.

    ``days`` is the number of days on which it was seen there, away from home, ``day`` the latest of these.
    """

    own: bool = False
    days: int = 0
    day: int = -1


@define(eq=False)
class Account:
    """An account: its first login (seconds since the epoch), its places, and its countries by code."""

    since: float
    places: OrderedDict[int, Place] = Factory(OrderedDict)
    countries: OrderedDict[str, Country] = Factory(OrderedDict)

    def put(self, place: Place) -> None:
        """Add a place, or replace the one with the same prefix."""
        self.places[_numbers_of(place.address)[0]] = place

    def move(self, seconds: float) -> None:
        """Add ``seconds`` to all times."""
        self.since += seconds
        for place in self.places.values():
            place.since += seconds
            place.last += seconds
            place.saved += seconds

    def is_own(self, country: str) -> bool:
        """Whether the account is at home in ``country``."""
        return country in self.countries and self.countries[country].own


def _wide_length(address: Address) -> int:
    """Return the prefix length of the wide network of an address."""
    if address.version == 6 and is_one_host(address):  # noqa: PLR2004 - the IP version
        return BITS[6] - _WIDE_BITS[4]
    return BITS[address.version] - _WIDE_BITS[address.version]


def _numbers_of(address: Address) -> tuple[int, int]:
    """Return the prefix and the wide network of an address, each as one integer that is different for all."""
    number, version = int(address), address.version
    if version == 6 and is_one_host(address):  # noqa: PLR2004 - the IP version
        return 2 << BITS[6] | number >> _PREFIX_BITS[4], 3 << BITS[6] | number >> _WIDE_BITS[4]
    return (
        version << BITS[6] | number >> _PREFIX_BITS[version],
        (version + 1) << BITS[6] | number >> _WIDE_BITS[version],
    )


class Accounts:
    """The accounts of all Asterisks and their places. ``known`` are those of the database.

    Each of them is passed in the order of its last login, the earliest first.
    """

    def __init__(self, known: Iterable[tuple[Key, Account]] = ()) -> None:
        self._accounts: OrderedDict[Key, Account] = OrderedDict()
        self._homes = Counter[int]()  # by prefix and by wide network, how many places are homes
        self._first: OrderedDict[int, Key] = OrderedDict()  # by wide network, who was first elsewhere there
        self._size = 0
        self._changed: dict[Key, None] = {}
        for key, account in known:
            self._accounts[key] = account
            self._size += len(account.places)
            for place in account.places.values():
                self._count(place, int(place.home))

    def __len__(self) -> int:
        """Return the number of accounts."""
        return len(self._accounts)

    @property
    def places(self) -> int:
        """The number of places of all accounts."""
        return self._size

    def is_home(self, address: Address) -> bool:
        """Whether any account is at home in the prefix of ``address``."""
        prefix, _ = _numbers_of(address)
        return prefix in self._homes

    def strange(self) -> list[tuple[Key, Place]]:
        """Return the places where accounts are not at home."""
        accounts = self._accounts.items()
        return [(key, one) for key, account in accounts for one in account.places.values() if not one.home]

    # -- logins ------------------------------------------------------------------------------------------

    def visit(self, key: Key, address: Address, now: float, *, guessed: bool = False) -> Place | None:
        """Record a login at a known place; return the place, or None if the place is new (see :meth:`add`).

        ``guessed``: wrong passwords from that address came before.
        """
        account = self._accounts.get(key)
        number, _ = _numbers_of(address)
        place = account.places.get(number) if account is not None else None
        if account is None or place is None:
            return None
        self._accounts.move_to_end(key)
        account.places.move_to_end(number)
        place.address = address
        before = place.grade, place.home
        if guessed:
            place.grade = Grade.AFTER_GUESSES
        elif place.grade is Grade.ELSEWHERE and (
            account.is_own(place.country) or self._is_shared(place.address, place.country)
        ):
            self._settle(place)
        if (place.grade, place.home) != before:
            place.saved = 0.0  # the database has the earlier values
        self._record(key, account, place, now)
        return place

    def add(
        self, key: Key, address: Address, location: Location, now: float, *, guessed: bool = False
    ) -> Place:
        """Record a login at a place that :meth:`visit` does not know; return the place with its grade.

        ``location`` is that of the address.
        """
        account = self._accounts.get(key)
        if account is not None:
            self._forget(account, now)
        if account is None or not account.places:
            account = Account(now)
        country, asn = location.get("country", ""), location.get("asn", "")
        number, _ = _numbers_of(address)
        grade = Grade.AFTER_GUESSES if guessed else self._grade(account, address, country, asn, now)
        place = Place(address, country, asn, grade, grade in _AT_HOME, now, now)
        self._accounts[key] = account
        self._accounts.move_to_end(key)
        account.places[number] = place
        self._size += 1
        self._count(place, int(place.home))
        if grade is Grade.LEARNED and country:
            account.countries.setdefault(country, Country()).own = True
        self._record(key, account, place, now)
        self._trim(account)
        return place

    def _grade(self, account: Account, address: Address, country: str, asn: str, now: float) -> Grade:
        if now - account.since < LEARN_FOR:
            return Grade.LEARNED
        if account.is_own(country) or not country:
            homes = (place for place in account.places.values() if place.home)
            if asn and any(place.asn == asn for place in homes):
                return Grade.NEAR
        if account.is_own(country) or self._is_shared(address, country):
            return Grade.NEW_NETWORK
        return Grade.ELSEWHERE

    def _is_shared(self, address: Address, country: str) -> bool:
        """Whether an account is at home in the prefix of an address, or near it if ``country`` is unknown."""
        prefix, wide = _numbers_of(address)
        return prefix in self._homes or (not country and wide in self._homes)

    def first_elsewhere(self, key: Key, place: Place) -> Key:
        """Return the account that was elsewhere in the wide network of ``place`` first: perhaps ``key``.

        An office that gets a new network is so one alarm, and not one for each of its accounts.
        """
        _, wide = _numbers_of(place.address)
        first = self._first.get(wide, key)
        remember(self._first, wide, first, MOST_FIRST)
        return first

    def _record(self, key: Key, account: Account, place: Place, now: float) -> None:
        """Count a login at ``place``. On its fifth day in a country, the account is at home there."""
        place.times += 1
        place.last = now
        day = int(now // DAY)
        if place.day != day:
            place.day, place.days = day, place.days + 1
            place.saved = 0.0
            if place.grade is Grade.ELSEWHERE and not place.home:
                self._count_day(account, place.country, day)
        if now - place.saved >= SAVE_AFTER:
            place.saved = now
            self._changed[key] = None

    def _count_day(self, account: Account, name: str, day: int) -> None:
        country = account.countries.setdefault(name, Country())
        account.countries.move_to_end(name)
        if country.day != day:
            country.day, country.days = day, country.days + 1
        if country.days >= OWN_DAYS:
            country.own = True
            for place in account.places.values():
                if place.country == name and place.grade is Grade.ELSEWHERE:
                    self._settle(place)

    def _settle(self, place: Place) -> None:
        """Record that the account of ``place`` is at home there."""
        if not place.home:
            place.home = True
            self._count(place, 1)

    def move(self, seconds: float) -> None:
        """Add ``seconds`` to all times, because the wall clock was set by as much."""
        for key, account in self._accounts.items():
            account.move(seconds)
            self._changed[key] = None

    # -- commands, and the location of known places ------------------------------------------------------

    def confirm(self, name: str) -> list[tuple[Key, Place]]:
        """Record that the account ``name`` is at home at all its places; return those where it was not."""
        found: list[tuple[Key, Place]] = []
        for key, account in self.named(name):
            for place in account.places.values():
                if not place.home or place.grade is Grade.AFTER_GUESSES:
                    found.append((key, place))
                    place.grade = Grade.CONFIRMED
                    self._settle(place)
                    if place.country:
                        account.countries.setdefault(place.country, Country()).own = True
                    self._changed[key] = None
        return found

    def named(self, name: str) -> list[tuple[Key, Account]]:
        """Return the accounts with this name: one for each Asterisk that has one."""
        return [(key, account) for key, account in self._accounts.items() if key[1] == name]

    def unlocated(self, keys: Iterable[Key] | None = None) -> list[tuple[Key, Place]]:
        """Return the places whose country is unknown, of ``keys`` or of all: a new database may know it."""
        accounts: Iterable[tuple[Key, Account]] = self._accounts.items()
        if keys is not None:
            accounts = [(key, self._accounts[key]) for key in keys if key in self._accounts]
        return [(key, one) for key, account in accounts for one in account.places.values() if not one.country]

    def locate(self, key: Key, place: Place, location: Location) -> None:
        """Set the location of a place. The account is at home in its country, if it is at the place."""
        account = self._accounts.get(key)
        country, asn = location.get("country", ""), location.get("asn", "")
        if account is None or (country, asn) == (place.country, place.asn):
            return
        place.country, place.asn = country, asn
        if place.home and country:
            account.countries.setdefault(country, Country()).own = True
        self._changed[key] = None

    # -- bounds and changes ------------------------------------------------------------------------------

    def take_changed(self) -> list[tuple[Key, Account | None]]:
        """Return the accounts that changed since the last call, for the database; None if one was dropped."""
        changed, self._changed = self._changed, {}
        return [(key, self._accounts.get(key)) for key in changed]

    def _trim(self, account: Account) -> None:
        if len(account.places) > MOST_OF_ACCOUNT:
            # The new place stays: the account must be confirmed there, or be at home there some day.
            *older, _ = account.places
            strange = (number for number in older if not account.places[number].home)
            self._drop(account, next(strange, older[0]))
        if len(account.countries) > MOST_COUNTRIES:
            foreign = (name for name, country in account.countries.items() if not country.own)
            del account.countries[next(foreign, next(iter(account.countries)))]
        while len(self._accounts) > MOST_ACCOUNTS or (self._size > MOST_PLACES and len(self._accounts) > 1):
            key, dropped = self._accounts.popitem(last=False)
            for number in [*dropped.places]:
                self._drop(dropped, number)
            self._changed[key] = None

    def _forget(self, account: Account, now: float) -> None:
        """Forget the places that the account has not used for ``KEEP``."""
        for number in [number for number, place in account.places.items() if now - place.last >= KEEP]:
            self._drop(account, number)

    def _drop(self, account: Account, number: int) -> None:
        place = account.places.pop(number)
        self._size -= 1
        self._count(place, -int(place.home))

    def _count(self, place: Place, change: int) -> None:
        for number in _numbers_of(place.address) if change else ():
            self._homes[number] += change
            if not self._homes[number]:
                del self._homes[number]


def rows_of(accounts: Iterable[tuple[Key, Account]]) -> Iterator[tuple[Key, Place]]:
    """Yield the places of these accounts, the latest login first."""
    found = [(key, place) for key, account in accounts for place in account.places.values()]
    yield from sorted(found, key=lambda one: one[1].last, reverse=True)
