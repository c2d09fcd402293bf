"""Which phones are gone: contacts that were there for a day, and are away. No side effects.

A *phone* here is a contact of an account. An account may have several, such as a desk phone and a mobile one.
Asterisk does not report that a phone moved, only that a contact appeared and another one disappeared, in
either order: the old contact may stay until its registration ends. So each account has a number of phones,
and each phone the time since which it is registered:

- If a contact appears, a phone that is away has come back, at the same address or at another one. If no phone
  is away, the phone is new.
- If a contact disappears, or the phone there does not answer, the phone that has been registered for the
  shortest time is away. It may have just appeared elsewhere: then a phone has moved, and no phone that was
  there for a day is away.
- If a contact appears at an address from which a phone has moved, the phone that left last has come back,
  even if it left another address: it has moved back.

A phone that was away for ``BREAK`` counts as new when it comes back. So a phone that is switched off each
night, or registers only for a call, is never registered for a day.

Asterisk's database has contacts, but not which of them answer. After a new connection, its list shows a phone
that is silent as if nothing was wrong. Such a phone has come back only if it has renewed its registration.

Times are seconds of any one clock. Bounds: ``most`` accounts of an Asterisk, ``MOST_CONTACTS`` contacts of an
account, and ``MOST_AWAY`` phones of it that are away. Further contacts are ignored.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from math import inf
from operator import attrgetter
from typing import NamedTuple, TypeVar

from attrs import define, field, frozen

from ringfence.values.event import short_account
from ringfence.values.friend import Contact
from ringfence.values.network import Address, Network, pack, prefix_of, sender_key

DAY = 86_400.0
"""Seconds for which a phone must have been registered."""
BREAK = 3_600.0
"""Seconds away after which a phone that comes back counts as new."""
FORGET = 7 * 86_400.0
"""Seconds away after which a phone is forgotten: it was removed."""

MOST = 20_000
MOST_CONTACTS, MOST_AWAY = 64, 64
AT_ONCE = 200
"""The number of contacts, or of accounts, that one step handles, in some 2 ms."""

_Place = Address | int
_T = TypeVar("_T")


@define(eq=False)
class _Present:
    """A contact, the time since which its phone is registered, and the last list that had it."""

    address: Address
    since: float
    last_list: int
    prefix: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Find the network of the address once, because that takes longer than everything else."""
        self.prefix = pack(prefix_of(self.address))


@define(eq=False)
class _Away:
    """A phone that is away.

    ``since`` is when it began to be registered, ``left`` when it disappeared from ``address``. Its absence
    counts from ``start``, which is later than ``left`` if Asterisk restarted meanwhile. If Asterisk still has
    the contact of a phone that does not answer, ``until`` is when the registration ends, inf if unknown;
    otherwise None. ``listed``: the alarm lists it. ``moved``: a phone has moved from ``address`` to another
    one. The database does not keep that.
    """

    account: str
    address: Address
    since: float
    left: float
    start: float
    until: float | None = None
    listed: bool = False
    moved: bool = False
    network: Network = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Find the network of the address once, as above."""
        self.network = prefix_of(self.address)

    @property
    def lasted(self) -> bool:
        """Whether the phone was registered for a day."""
        return self.left - self.since >= DAY

    def may_be_silent(self, contact: Contact) -> bool:
        """Whether this phone may still be silent, although Asterisk has ``contact`` at its address."""
        if self.until is None or contact.reachable:
            return False
        return contact.until is None or contact.until <= self.until


class SavedPhone(NamedTuple):
    """A phone as the database has it, with times in seconds since the epoch.

    ``seen`` is when it was last seen: when it disappeared if it is ``away``, else when it was saved. The
    other values are those of a phone that is away.
    """

    asterisk: str
    account: str
    address: Address
    since: float
    seen: float
    away: bool = False
    until: float | None = None
    listed: bool = False


@frozen
class GoneNetwork:
    """The phones of one network that are gone: their accounts, and when the first one disappeared.

    ``left_there`` is the number of phones in the network that are registered.
    """

    network: Network
    accounts: tuple[str, ...]
    since: float
    left_there: int


def _steps(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    """Yield the items in parts, each of which one step handles."""
    return (items[start : start + AT_ONCE] for start in range(0, len(items), AT_ONCE))


class _Account:
    """The contacts of an account, by address or IPv6 /64, and its phones that are away, the latest last."""

    __slots__ = ("away", "present")

    def __init__(self) -> None:
        self.present: dict[_Place, _Present] = {}
        self.away: list[_Away] = []

    def away_from(self, place: _Place) -> _Away | None:
        """Return the phone that is away from a place; None if there is none."""
        return next((phone for phone in self.away if sender_key(phone.address) == place), None)


class Absences:
    """The phones of all Asterisks: which are registered, and which are away."""

    def __init__(self, most: int = MOST) -> None:
        self.changes = 0
        """Increases whenever a phone that was registered for a day is away, is listed, or no longer so."""
        self.listed = 0
        """The number of phones that were listed as gone so far, without restored ones."""
        self._most = most
        self._accounts: dict[str, dict[str, _Account]] = {}
        self._lists = 0

    def __len__(self) -> int:
        """Return the number of phones that are registered."""
        return sum(len(mine.present) for accounts in self._accounts.values() for mine in accounts.values())

    @property
    def asterisks(self) -> Collection[str]:
        """The names of the Asterisks that have phones."""
        return self._accounts.keys()

    # -- what is kept between two runs

    def save(self, now: float, wall: float) -> Iterator[list[SavedPhone]]:
        """Yield all phones in lists, each of which takes a short step; ``wall`` is the wall clock's now."""
        offset = wall - now
        for asterisk, accounts in [*self._accounts.items()]:
            for some in _steps([*accounts.items()]):
                found = []
                for account, mine in some:
                    found += [
                        SavedPhone(asterisk, account, one.address, one.since + offset, wall)
                        for one in mine.present.values()
                    ]
                    found += [
                        SavedPhone(
                            asterisk,
                            account,
                            one.address,
                            one.since + offset,
                            one.left + offset,
                            away=True,
                            until=one.until,
                            listed=one.listed,
                        )
                        for one in mine.away
                    ]
                yield found

    def restore(self, phones: Iterable[SavedPhone], now: float, wall: float) -> None:
        """Restore the phones of an earlier run. A registered one is away if the next list lacks it.

        A registered phone that nobody saw for ``BREAK`` may have been away as long, so it counts as new.
        """
        for phone in phones:
            mine = self._account(phone.asterisk, phone.account)
            # One that was seen after now keeps its age: the clock was ahead then, or is behind now.
            offset = now - max(wall, phone.seen)
            since, seen = (min(now, time + offset) for time in (phone.since, phone.seen))
            if mine is None:
                continue
            if phone.away and len(mine.away) < MOST_AWAY:
                mine.away.append(
                    _Away(phone.account, phone.address, since, seen, now, phone.until, listed=phone.listed)
                )
            elif not phone.away and now - seen < BREAK and len(mine.present) < MOST_CONTACTS:
                mine.present[sender_key(phone.address)] = _Present(phone.address, since, self._lists)

    # -- what Asterisk reports

    def on_contact(self, contact: Contact, now: float) -> None:
        """Handle the change of a contact."""
        if contact.gone or contact.unreachable:
            self._disappear(contact.asterisk, contact.account, contact.address, now)
            self._hold(contact)
        else:
            self._appear(contact, now)

    def replace(self, asterisk: str, contacts: Sequence[Contact], now: float) -> Iterator[None]:
        """Handle the complete list of an Asterisk's contacts, in short steps.

        Yield after each step. Changes may be recorded between two steps.
        """
        self._lists += 1
        number = self._lists
        for some in _steps(contacts):
            for contact in some:
                if not contact.unreachable:
                    self._appear(contact, now)
            yield
        for known in _steps([*self._accounts.get(asterisk, {}).items()]):
            for account, mine in known:
                missing = [one for one in mine.present.values() if one.last_list < number]
                # The youngest first: so each phone keeps its own time.
                for one in sorted(missing, key=attrgetter("since"), reverse=True):
                    self._disappear(asterisk, account, one.address, now)
            yield
        for some in _steps(contacts):
            for contact in some:
                if contact.unreachable:
                    self._hold(contact)
            yield

    def _appear(self, contact: Contact, now: float) -> None:
        """Record that Asterisk has a contact, which may answer."""
        mine, place = self._account(contact.asterisk, contact.account), sender_key(contact.address)
        if mine is None:
            return
        here = mine.present.get(place)
        if here is not None:
            here.last_list = self._lists
            return
        back = mine.away_from(place)
        if len(mine.present) >= MOST_CONTACTS or (back is not None and back.may_be_silent(contact)):
            return
        since = now
        if mine.away:
            latest = mine.away[-1]
            back = back or latest
            if back.moved and latest.since < back.since:
                back.since, back.left, latest.since = latest.since, latest.left, back.since
                latest.moved = True
            mine.away.remove(back)
            self.changes += back.lasted
            if now - back.left < BREAK:
                since = back.since
        mine.present[place] = _Present(contact.address, since, self._lists)

    def _disappear(self, asterisk: str, account: str, address: Address, now: float) -> None:
        """Record that a contact is gone, or that the phone there does not answer."""
        mine = self._accounts.get(asterisk, {}).get(short_account(account))
        gone = mine.present.pop(sender_key(address), None) if mine is not None else None
        if mine is None or gone is None:
            return
        youngest = max(mine.present.values(), key=attrgetter("since"), default=gone)
        moved = youngest.since > gone.since
        if moved:
            youngest.since, gone.since = gone.since, youngest.since
        phone = _Away(short_account(account), address, gone.since, now, now, moved=moved)
        mine.away.append(phone)
        self.changes += phone.lasted
        del mine.away[:-MOST_AWAY]

    def _hold(self, contact: Contact) -> None:
        """Record until when Asterisk has the contact of a phone that does not answer; None if it is gone."""
        mine = self._accounts.get(contact.asterisk, {}).get(short_account(contact.account))
        phone = mine.away_from(sender_key(contact.address)) if mine is not None else None
        if phone is not None:
            phone.until = None if contact.gone else contact.until or inf

    # -- which phones are gone

    def postpone(self, asterisk: str, start: float) -> None:
        """Let the absence of phones that are not listed yet count from ``start``, or from later."""
        for mine in self._accounts.get(asterisk, {}).values():
            for phone in mine.away:
                if not phone.listed:
                    phone.start = max(phone.start, start)

    def keep_only(self, asterisks: Collection[str]) -> None:
        """Forget the phones of all other Asterisks."""
        for name in self._accounts.keys() - set(asterisks):
            del self._accounts[name]
            self.changes += 1

    def purge(self, now: float) -> None:
        """Forget phones that are away for long, and accounts without a phone."""
        for accounts in self._accounts.values():
            for account in [*accounts]:
                mine = accounts[account]
                if mine.away:
                    mine.away = [
                        phone for phone in mine.away if now - phone.left < (FORGET if phone.lasted else BREAK)
                    ]
                if not mine.away and not mine.present:
                    del accounts[account]

    def list_gone(self, after: float, now: float) -> list[GoneNetwork]:
        """List the phones that are gone, by network: those with the most phones first.

        A phone is gone if it was registered for a day, and is away for ``after`` seconds. When it is listed,
        so are those of its network that are away for a shorter time, because they may have the same cause. A
        phone stays listed until it comes back, or is forgotten.
        """
        away = [
            phone
            for accounts in self._accounts.values()
            for mine in accounts.values()
            for phone in mine.away
            if phone.lasted
        ]
        gone = {one.network for one in away if not one.listed and now - one.start >= after}
        found: dict[Network, list[_Away]] = {}
        for phone in away:
            if not phone.listed and phone.network in gone and phone.start <= now:
                phone.listed = True
                self.listed += 1
                self.changes += 1
            if phone.listed:
                found.setdefault(phone.network, []).append(phone)
        left = self._number_in(found.keys()) if found else {}
        networks = [
            GoneNetwork(
                network,
                tuple(sorted(phone.account for phone in phones)),
                min(phone.left for phone in phones),
                left.get(network, 0),
            )
            for network, phones in found.items()
        ]
        return sorted(networks, key=lambda one: (-len(one.accounts), one.since))

    def _number_in(self, networks: Collection[Network]) -> dict[Network, int]:
        """Return how many phones are registered in each of ``networks`` that has any."""
        numbers: dict[Network, int] = {}
        packed = {pack(network): network for network in networks}
        for accounts in self._accounts.values():
            for mine in accounts.values():
                for one in mine.present.values():
                    network = packed.get(one.prefix)
                    if network is not None:
                        numbers[network] = numbers.get(network, 0) + 1
        return numbers

    def _account(self, asterisk: str, account: str) -> _Account | None:
        """Return the entry of an account, which is made if there is room; None if there is none."""
        accounts = self._accounts.setdefault(asterisk, {})
        name = short_account(account)
        mine = accounts.get(name)
        if mine is None and len(accounts) < self._most:
            mine = accounts[name] = _Account()
        return mine
