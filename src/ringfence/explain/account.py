"""The facts of an account: the addresses of its phone, its failures, its bans, and advice what to do."""

import enum
from collections.abc import Iterable, Mapping
from heapq import nlargest
from ipaddress import ip_network
from operator import attrgetter
from typing import Any

from attrs import Factory, frozen

from ringfence.alarm_codes import AlarmCode
from ringfence.alarms import AlarmRecord
from ringfence.config.schema import Settings
from ringfence.detect.friends import MOST
from ringfence.errors import StoreError
from ringfence.lists.locator import Locator
from ringfence.lists.regions import files_of
from ringfence.plurals import counted
from ringfence.store.bans import KEEP
from ringfence.store.database import Store
from ringfence.store.file import is_there
from ringfence.values.attempt import Attempt, AttemptKind
from ringfence.values.ban import Ban
from ringfence.values.event import EventKind, Service, short_account
from ringfence.values.friend import Friend, FriendReason
from ringfence.values.location import UNKNOWN, Location, row_of
from ringfence.values.network import Address, affects, format_network
from ringfence.values.text import printable, rfc3339


def reason_of(attempt: Attempt) -> str:
    """Return in two or three words why Asterisk refused an attempt, such as ``unknown extension``.

    Most reasons follow from the kind of the event. For example, PJSIP reports a wrong password as
    ``ChallengeResponseFailed``.
    """
    if attempt.kind is AttemptKind.PROBE:
        return "unknown caller" if attempt.service is Service.DIALPLAN else "unknown extension"
    return attempt.event.reason


MOST_SHOWN = 16
"""The maximum number of addresses in each of two lists of an answer about an account.

One list has the addresses where the account works or worked, the other one those where it failed.
"""
MOST_FRIENDS = 64
"""The maximum number of current friends of one account, and also of its former friends.

A friend is here one address with one reason. An account whose password is stolen may have thousands.
"""
_OF_ASTERISK = {AlarmCode.ATTACK_DISTRIBUTED}  # alarms about an account at one Asterisk, not at an address


class AccountVerdict(enum.StrEnum):
    """The state of an account. If several apply, the first one in this order is its verdict."""

    OUTAGE = "outage"  # the account fails where it worked, and all phones fail at once (outage mode)
    DENIED = "denied"  # an address where the account is now, or was last, is on the deny list
    BANNED = "banned"  # an address where the account is now, or was last, is banned
    BROKEN = "broken"  # the account fails at an address where it worked
    REGISTERED = "registered"  # the account works: an address is a friend because of it
    LOCKED_OUT = "locked out"  # the last failure came from a banned address, and the account works nowhere
    FAILING = "failing"  # the account fails, and works at no address now
    GONE = "gone"  # the account worked within the last month, but works at no address now
    UNKNOWN = "unknown"  # ringfence has seen nothing of the account


@frozen
class Failures:
    """The failed attempts on one account from one address.

    ``last`` is the last attempt. ``first`` is the time of the first one (seconds since the epoch). ``times``
    is the number of attempts.
    """

    last: Attempt
    first: float
    times: int


@frozen
class AccountFacts:
    """All that is known about ``account`` at ``now`` (seconds since the epoch).

    ``friends`` are the addresses that are friends because of this account, each with its reason; ``former``
    are those that no longer are. Both have only the latest MOST_FRIENDS. ``failures`` has one entry for each
    address at which the account failed, at most MOST_SHOWN, the latest first. ``bans`` has the active bans of
    each address in these three. ``denied`` has the addresses in ``friends`` and ``former`` that are on the
    deny list, and not on the allow list. ``alarms`` are the active alarms about the account. ``outage_mode``:
    all phones fail at once, so bans of known phones are suspended.

    ``live``: the facts are from a daemon. Without a daemon, ``denied`` and ``alarms`` are empty, and
    ``outage_mode`` is False, because they are unknown. ``problems`` has a line for each fact that could not
    be read. ``locations`` has the location of each address in ``failures`` (``values/location.py``).
    """

    account: str
    now: float
    friends: tuple[Friend, ...] = ()
    former: tuple[Friend, ...] = ()
    failures: tuple[Failures, ...] = ()
    bans: Mapping[Address, tuple[Ban, ...]] = Factory(dict)
    denied: tuple[Address, ...] = ()
    alarms: tuple[AlarmRecord, ...] = ()
    outage_mode: bool = False
    live: bool = True
    problems: tuple[str, ...] = ()
    locations: Mapping[Address, Location] = Factory(dict)

    @property
    def homes(self) -> dict[Address, Friend]:
        """The addresses where the account works, then those where it worked; the latest sign of each.

        The address that was seen last comes first in both parts.
        """
        found: dict[Address, Friend] = {}
        every = (*self.friends, *self.former)
        for friend in sorted(every, key=lambda one: (one.until > self.now, one.seen), reverse=True):
            found.setdefault(friend.address, friend)
        return found

    @property
    def present(self) -> tuple[Address, ...]:
        """The addresses where the account works; if it works nowhere, the one where it worked last."""
        homes = self.homes
        return tuple(address for address, home in homes.items() if home.until > self.now) or (*homes,)[:1]

    @property
    def left(self) -> list[Address]:
        """The addresses where the account worked, and is no longer; the one seen last comes first."""
        present = self.present
        return [address for address in self.homes if address not in present]

    @property
    def last_success(self) -> Friend | None:
        """The friend that shows when and where the account last worked; None if it never worked.

        This is the latest friend that sent the right password. If no friend did, it is the latest friend for
        any other reason, such as a registration.
        """
        known = (*self.friends, *self.former)
        right = [one for one in known if one.reason is FriendReason.AUTHENTICATED]
        return max(right or known, key=attrgetter("seen"), default=None)

    @property
    def failing_at_home(self) -> Failures | None:
        """The latest failed attempts at an address where the account worked before; None if there are none.

        They are ignored if the account worked there after them, and either still works there or has worked
        elsewhere since.
        """
        homes, present = self.homes, self.present
        for one in self.failures:
            home = homes.get(one.last.address)
            if home is None:
                continue
            ended = home.until <= self.now and home.address in present
            if one.last.time > home.seen or ended:
                return one
        return None

    @property
    def verdict(self) -> AccountVerdict:
        """The state of the account, such as ``banned`` or ``registered``: the first one that applies."""
        present, failing = self.present, self.failing_at_home is not None
        broken = failing or any(alarm.code is AlarmCode.PHONE_BROKEN for alarm in self.alarms)
        locked_out = bool(self.failures) and bool(self.bans.get(self.failures[0].last.address))
        applies = {
            AccountVerdict.OUTAGE: self.outage_mode and failing,
            AccountVerdict.DENIED: any(address in self.denied for address in present),
            AccountVerdict.BANNED: any(self.bans.get(address) for address in present),
            AccountVerdict.BROKEN: broken,
            AccountVerdict.REGISTERED: bool(self.friends),
            AccountVerdict.LOCKED_OUT: locked_out,
            AccountVerdict.FAILING: bool(self.failures),
            AccountVerdict.GONE: bool(self.former),
            AccountVerdict.UNKNOWN: True,
        }
        return next(verdict for verdict, true in applies.items() if true)


def is_about_account(alarm: AlarmRecord, account: str) -> bool:
    """Whether an alarm is about ``account``.

    The subject of such an alarm is the account, alone or followed by an address (``204 at 192.0.2.1``) or by
    the name of an Asterisk (``204 of pbx``).
    """
    name = printable(short_account(account))
    between = " of " if alarm.code in _OF_ASTERISK else " at "
    return alarm.subject == name or alarm.subject.rpartition(between)[0] == name


def latest_of(friends: Iterable[Friend]) -> tuple[Friend, ...]:
    """Return the friends that were seen last, at most MOST_FRIENDS; the latest first."""
    return tuple(nlargest(MOST_FRIENDS, friends, key=attrgetter("seen")))


def failures_of(attempts: Iterable[Attempt]) -> list[Failures]:
    """Group the failed attempts on one account by address; return one entry for each, the latest first."""
    found: dict[Address, Failures] = {}
    for attempt in sorted(attempts, key=attrgetter("time")):
        known = found.get(attempt.address)
        first, times = (known.first, known.times) if known is not None else (attempt.time, 0)
        found[attempt.address] = Failures(attempt, first, times + 1)
    return sorted(found.values(), key=attrgetter("last.time"), reverse=True)


def merged(remembered: Iterable[Failures], recorded: Iterable[Failures]) -> tuple[Failures, ...]:
    """Return the failed attempts on an account, an entry for each address, latest first, at most MOST_SHOWN.

    ``remembered`` are those in the daemon's memory, ``recorded`` those in the database. If both have failures
    at one address, the daemon's are returned. If there are too many addresses, recorded ones are left out
    first, because the daemon remembers the failures where the account works, however many strangers fail.
    """
    known = {one.last.address: one for one in remembered}
    found = {one.last.address: one for one in recorded} | known
    kept = nlargest(MOST_SHOWN, found.values(), key=lambda one: (one.last.address in known, one.last.time))
    return tuple(sorted(kept, key=attrgetter("last.time"), reverse=True))


_ADVICE = {
    AccountVerdict.OUTAGE: "all phones fail at once: look at Asterisk's database and at its last reload",
    AccountVerdict.GONE: "it worked, and nothing arrives from it now: look at the phone and at its network",
    AccountVerdict.UNKNOWN: "nothing arrived from it: look at the name, the phone, and the network between",
}


def advice(known: AccountFacts) -> str:
    """Return a sentence of advice for the administrator: what to do about the account."""
    verdict, former = known.verdict, _blocked_before(known)
    if verdict in _ADVICE:
        return _ADVICE[verdict] + former
    if verdict is AccountVerdict.DENIED:
        denied = next(address for address in known.present if address in known.denied)
        return f"the deny list contains its address: ringfence allow add {denied}"
    if verdict is AccountVerdict.BANNED:
        banned = next(address for address in known.present if known.bans.get(address))
        return f"if the customer is at {banned}: ringfence unban --allow {banned}"
    if verdict is AccountVerdict.REGISTERED:
        others = len({one.last.address for one in known.failures} - known.homes.keys())
        addresses = counted(others, "other address", "other addresses")
        least = "at least " if len(known.failures) >= MOST_SHOWN else ""
        tried = f"; {least}{addresses} tried it without success" if others else ""
        offline = "no ban blocks it; without the daemon the deny list is not known"
        here = "ringfence does not block it, and the cause is elsewhere" if known.live else offline
        return here + tried + former
    failing = known.failing_at_home or (known.failures[0] if known.failures else None)
    if failing is None:
        return "correct the password of the phone, or the account in Asterisk"
    return _fix(failing, banned=bool(known.bans.get(failing.last.address)))


def _blocked_before(known: AccountFacts) -> str:
    """Return a clause about a former address of the account that is banned or denied; "" without one."""
    blocked = next((one for one in known.left if known.bans.get(one) or one in known.denied), None)
    if blocked is None:
        return ""
    return f"; its former address {blocked} is blocked: if the phone is there, see: ringfence why {blocked}"


def _fix(failing: Failures, *, banned: bool) -> str:
    address = failing.last.address
    then = f", then: ringfence unban {address}" if banned else ""
    mine = f"if the customer is at {address}: " if banned else ""
    if failing.last.event is EventKind.INVALID_ACCOUNT_ID:
        return f"{mine}Asterisk does not know this account; correct the name in the phone at {address}{then}"
    if reason_of(failing.last) == "ACL":
        return f"{mine}an ACL of Asterisk refuses {address}; correct the ACL of the account{then}"
    if reason_of(failing.last) == "unknown extension":
        return f"{mine}it called an extension that does not exist{then}"
    return f"{mine}correct the password in the phone at {address}{then}"


# -- the facts of an account as JSON
#
# The keys are an interface for scripts: keys may be added, but not changed or removed.


Document = dict[str, Any]


def account_document(known: AccountFacts) -> Document:
    """Return all facts as a JSON object. Times are RFC 3339 texts, and hostile text is made printable."""
    success, homes, left = known.last_success, known.homes, known.left
    return {
        "account": printable(known.account),
        "verdict": str(known.verdict),
        "advice": advice(known),
        "addresses": [_home(friend, known) for friend in [*homes.values()][:MOST_SHOWN]],
        "last_success": None if success is None else _seen(success),
        "failures": [_failures(one, known) for one in known.failures],
        "bans": [
            {**_ban(address, ban), "former": address in left}
            for address, bans in known.bans.items()
            for ban in bans
        ],
        "denied": [str(address) for address in known.denied],
        "alarms": [alarm.as_json() for alarm in known.alarms],
        "outage_mode": known.outage_mode,
        "daemon": known.live,
        "problems": list(known.problems),
    }


def _home(friend: Friend, known: AccountFacts) -> Document:
    return {
        **_seen(friend),
        "asterisk": printable(friend.asterisk),
        "since": rfc3339(friend.since),
        "until": rfc3339(friend.until),
        "current": friend.until > known.now,
        "banned": bool(known.bans.get(friend.address)),
    }


def _seen(friend: Friend) -> Document:
    return {"address": str(friend.address), "reason": str(friend.reason), "seen": rfc3339(friend.seen)}


def _failures(one: Failures, known: AccountFacts) -> Document:
    last = one.last
    return {
        "address": str(last.address),
        **row_of(known.locations.get(last.address, UNKNOWN)),
        "reason": reason_of(last),
        "times": one.times,
        "first": rfc3339(one.first),
        "last": rfc3339(last.time),
        "event": str(last.event),
        "service": str(last.service),
        "transport": str(last.transport),
        "proof": last.proof.name.lower(),
        "worked": last.address in known.homes,
        "banned": bool(known.bans.get(last.address)),
    }


def _ban(address: Address, ban: Ban) -> Document:
    return {
        "address": str(address),
        "network": format_network(ban.network),
        "scope": str(ban.scope),
        "rule": printable(ban.rule),
        "reason": printable(ban.reason),
        "since": rfc3339(ban.since),
        "expires": rfc3339(ban.expires),
    }


# -- collects the facts of an account from the database, for a command that finds no daemon


MOST_ATTEMPTS = 1_000
_MOST_BANS = 5


def account_offline(settings: Settings, account: str, now: float) -> AccountFacts:
    """Collect the facts of ``account`` at ``now`` (seconds since the epoch).

    The database has only failures that led to bans, so all others are missing. If the database cannot be
    read, ``problems`` has the error.
    """
    path = settings.store.path
    if not is_there(path):
        return AccountFacts(account, now, live=False)
    try:
        with Store.open(path, owner=False) as store:
            return _facts_from(store, account, now, Locator(files_of(settings)))
    except StoreError as error:
        return AccountFacts(account, now, live=False, problems=(str(error),))


def _facts_from(store: Store, account: str, now: float, locator: Locator) -> AccountFacts:
    kept = short_account(account)
    friends = latest_of(one for one in store.friends.current(now, MOST) if short_account(one.account) == kept)
    former = latest_of(one for one in store.friends.former(now, MOST) if short_account(one.account) == kept)
    failures = merged((), failures_of(store.bans.attempts_on(kept, now - KEEP, MOST_ATTEMPTS)))
    addresses = [*(one.address for one in (*friends, *former)), *(one.last.address for one in failures)]
    spared = {friend.address for friend in friends}
    bans = {
        address: tuple(
            past.ban
            for past in store.bans.past(ip_network(address), now, _MOST_BANS)
            if past.runs(now) and affects(past.ban.network, friend=address in spared)
        )
        for address in addresses
    }
    failed_at = [one.last.address for one in failures]
    found = dict(zip(failed_at, locator.read(failed_at), strict=True))
    return AccountFacts(account, now, friends, former, failures, bans, live=False, locations=found)
