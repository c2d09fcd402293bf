"""Stolen passwords on a real Asterisk: a thief logs in from abroad, and calls as fast as it is answered.

The account has been at home in one country for longer than a month. With `elsewhere = "stranger"` the thief's
address must not become a friend. With `"block"` it is banned: calls that begin after the ban must not be
answered. The owner's phone at home works all the time.
"""

import tempfile
import time
from collections.abc import Iterator, Sequence
from math import inf
from pathlib import Path
from threading import Thread
from typing import Any

from attrs import define, frozen
from tests.bench.figures import Figure, spread
from tests.bench.testbed import PLACED, Bed, bed
from tests.support import places
from tests.support.asterisk_files import PASSWORD
from tests.support.daemon import Guard, until
from tests.support.network import PBX_IPV4
from tests.support.phones import configured, phones_at
from tests.support.sip_raw import Caller, calling, request_of

WAYS = (
    ("chan_sip of Asterisk 16", "16", 5060, "nftables"),
    ("PJSIP of Asterisk 16", "16", 5080, "ipset"),
    ("PJSIP of Asterisk 22", "22", 5060, "nftables"),
)
STRANGER, BLOCK = "stranger", "block"
THEFTS = 5
SOON = 1.0
"""The maximum seconds from a login to its alarm."""
_PATIENCE = 2.0
_LOOK = 0.02
_ACCEPTED = 200
_CORES = PLACED.replace("attacker", "phones")
_LATER = 3
"""The number of calls after the ban."""
HOME = "198.19.90.7"


@frozen
class Theft:
    """The outcome of one theft.

    ``alarm`` and ``ban`` are the seconds since the start of the login, infinite if there was none.
    ``friend`` is whether the thief's address was a friend after the alarm. ``before`` and ``after`` are the
    answered calls that began before and after the ban. ``owner`` is whether the owner's phone worked.
    """

    alarm: float
    ban: float
    friend: bool
    before: int
    after: int
    owner: bool


@define
class Watch:
    """What a guard does about an address, seen from outside: times are monotonic, infinite if it did not."""

    guard: Guard
    address: str
    account: str
    alarm: float = inf
    ban: float = inf
    friend: bool = False
    over: bool = False

    def run(self) -> None:
        """Look until it is ``over``."""
        while not self.over:
            if self.alarm == inf and self._alarmed():
                self.alarm = time.monotonic()
            if self.ban == inf and self.address in self.guard.banned():
                self.ban = time.monotonic()
            if self.alarm < inf:
                self.friend = self.friend or self.address in _friends(self.guard)
            time.sleep(_LOOK)

    def _alarmed(self) -> bool:
        found = self.guard.ask("alarms")
        return any(
            one["code"] == "account.elsewhere" and one["subject"].startswith(f"{self.account} ")
            for one in found
        )


def thefts(release: str, port: int, backend: str, elsewhere: str) -> list[Theft]:
    """Steal the passwords of several accounts, one after the other."""
    accounts = [f"phone{number}" for number in range(1, THEFTS + 1)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        places.record(folder, accounts)
        strict: dict[str, Any] = {"geo": places.database_in(folder), "account": {"elsewhere": elsewhere}}
        extra, firewall = configured(release), {"backend": backend}
        with bed(release=release, extra=extra, firewall=firewall, folder=folder, **strict) as here:
            return [
                _theft(here, port, account, f"198.19.{128 + number}.66")
                for number, account in enumerate(accounts)
            ]


def _theft(here: Bed, port: int, account: str, address: str) -> Theft:
    watch = Watch(here.guard, address, account)
    with (
        phones_at(here.lab, HOME, [account], (PBX_IPV4, port)) as [owner],
        calling(here.lab, address, port=port) as thief,
    ):
        registered = owner.register()
        until(lambda: HOME in _friends(here.guard), "the friend at home")
        watching = Thread(target=watch.run)
        watching.start()
        try:
            login = time.monotonic()
            status = thief.guess(request_of(b"REGISTER", account.encode()), PASSWORD, _PATIENCE)
            # A ban may come before the answer to the login.
            if registered != _ACCEPTED or status not in {_ACCEPTED, 0}:
                raise RuntimeError(f"{account} could not register: {registered}, {status}")
            answered = _calls(thief, account, watch, login + _PATIENCE)
        finally:
            watch.over = True
            watching.join()
        works = owner.register() == _ACCEPTED and HOME in _friends(here.guard)
    before = sum(began <= watch.ban for began in answered)
    return Theft(watch.alarm - login, watch.ban - login, watch.friend, before, len(answered) - before, works)


def _calls(thief: Caller, account: str, watch: Watch, end: float) -> list[float]:
    """Call until some calls have followed the ban; return when the answered calls began."""
    answered, later = [], 0
    while later < _LATER and time.monotonic() < end:
        began = time.monotonic()
        later += began > watch.ban
        if thief.guess(request_of(b"INVITE", account.encode()), PASSWORD, 0.5) == _ACCEPTED:
            answered.append(began)
    return answered


def _friends(guard: Guard) -> set[str]:
    return {row["address"] for row in guard.ask("friends")}


def figures(_: Path | None) -> Iterator[Figure]:
    """Measure, and yield the rows."""
    for name, release, port, backend in WAYS:
        for elsewhere, row in (STRANGER, _stranger), (BLOCK, _block):
            yield row(f"{name}, {backend}", thefts(release, port, backend, elsewhere))


def _seconds(values: Sequence[float]) -> str:
    """Return seconds as text; those that are infinite were never over."""
    never = values.count(inf)
    return spread([one for one in values if one < inf]) + (f", never in {never} thefts" if never else "")


def _stranger(where: str, found: Sequence[Theft]) -> Figure:
    alarms, friends = [one.alarm for one in found], sum(one.friend for one in found)
    owners, calls = sum(one.owner for one in found), sum(one.before for one in found)
    return Figure(
        what="a login with a stolen password from abroad: seconds until the alarm `account.elsewhere`; with "
        f'`elsewhere = "stranger"`, thieves\' addresses that are friends; owners that are cut: {where}',
        measured=f"{_seconds(alarms)}; {friends}; {len(found) - owners} of {len(found)}; "
        f"{calls} calls were answered",
        must=f"≤ {SOON:.0f}; 0; 0",
        reached=max(alarms) <= SOON and not friends and owners == len(found) and calls > 0,
        cores=_CORES,
    )


def _block(where: str, found: Sequence[Theft]) -> Figure:
    alarms, bans = [one.alarm for one in found], [one.ban for one in found]
    before, after = sum(one.before for one in found), sum(one.after for one in found)
    owners = sum(one.owner for one in found)
    return Figure(
        what='the same with "block": seconds until the alarm, and until the ban; calls that begin after the '
        f"ban and are answered; owners that are cut: {where}",
        measured=f"{_seconds(alarms)}, {_seconds(bans)}; {after} of {_LATER * len(found)}; "
        f"{len(found) - owners} of {len(found)}; {before} calls were answered before the bans",
        must=f"≤ {SOON:.0f}, ≤ {SOON:.0f}; 0; 0",
        reached=max(alarms + bans) <= SOON and not after and owners == len(found),
        cores=_CORES,
    )
