"""Phones that behave like real ones, with chan_sip and PJSIP, the limiter, the ration, and every strict rule.

Every phone of the network does what phones do (:mod:`tests.support.phones`). There is no attack: each ban and
each dropped packet is a fault. All rules are on. Strangers that ask for no name of the PBX are banned, and so
are logins from a country where their account never was. All accounts are known for longer than a month.

In the end a thief logs in from abroad: if it is not banned, the rows have shown nothing.
"""

import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from attrs import frozen
from tests.bench.figures import Figure
from tests.bench.testbed import PLACED, Bed, bed
from tests.support import places
from tests.support.daemon import until
from tests.support.network import PBX_IPV4
from tests.support.phones import NAME, NUMBERS, OFFICE, Day, a_day, configured, phones_at, socket_at

DAYS = 3
MONTH, PLACES = 30, 6
"""The days of a month, and the networks that a phone on the road uses in it.

The days follow each other at once, and an account makes friends at no more than eight new addresses an hour.
"""
THIEF = "198.19.128.66"
WAYS = (
    ("chan_sip of Asterisk 16", "16", 5060, "nftables"),
    ("PJSIP of Asterisk 16", "16", 5080, "ipset"),
    ("PJSIP of Asterisk 22", "22", 5060, "ipset"),
    ("PJSIP of Asterisk 22", "22", 5060, "nftables"),
)
_ACCOUNTS = [f"phone{number}" for number in range(1, NUMBERS + 1)]
_ON_THE_ROAD = _ACCOUNTS[OFFICE:]


@frozen
class Suffered:
    """The actions of phones on one Asterisk, and the bans and drops.

    ``month`` are those of the phones on the road, ``cut`` the bans that followed from them. ``works`` is
    whether a thief's address was banned in the end.
    """

    days: tuple[Day, ...]
    bans: int
    drops: int
    month: Day
    cut: int
    works: bool

    @property
    def wrong(self) -> str:
        """The steps of the days with a wrong status."""
        return "".join(map(_wrong, self.days))


def lived(release: str, port: int, backend: str) -> Suffered:
    """Run the phones several times with a daemon that has no friends at first."""
    firewall = {"backend": backend, "limit": {"mode": "enforce"}, "ration": {"asking": "enforce"}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        places.record(folder, _ACCOUNTS)
        strict: dict[str, Any] = {
            "geo": places.database_in(folder),
            "account": {"elsewhere": "block"},
            "bare_address": {"mode": "enforce", "domains": [NAME]},
        }
        with bed(
            release=release, extra=configured(release), firewall=firewall, folder=folder, **strict
        ) as here:
            days = tuple(a_day(here.lab, f"198.19.{90 + day}", port, NAME) for day in range(DAYS))
            bans, drops = len(here.guard.bans()), here.guard.status()["limiter_drops"]
            month = _a_month(here, port)
            cut = len(here.guard.bans()) - bans
            return Suffered(days, bans, drops, month, cut, _blocks(here, port))


def _a_month(here: Bed, port: int) -> Day:
    """Register phones at home, and each day in one of the other networks of their country too."""
    day = Day()
    for number, account in enumerate(_ON_THE_ROAD, 1):
        with phones_at(here.lab, f"198.19.90.{number}", [account], (PBX_IPV4, port), NAME) as [phone]:
            home, phone.patience = phone.where, 5.0
            day.ends("registered", phone.register())
            for date in range(MONTH):
                place = date % PLACES
                carrier = 96 if place % 2 else 112  # MOBILE, HOTELS
                with socket_at(here.lab, f"198.19.{carrier + place}.{number}") as away:
                    phone.move(away)
                    day.ends("registered on the road", phone.register(), phone.register())
                    day.ends("subscribed on the road", phone.subscribe())
                phone.move(home)
                day.ends("registered at home", phone.register())
            day.count([phone])
    return day


def _blocks(here: Bed, port: int) -> bool:
    """Whether the address of a login from abroad is banned."""
    with phones_at(here.lab, THIEF, ["phone1"], (PBX_IPV4, port), NAME) as [thief]:
        thief.register()
    with suppress(AssertionError):
        until(lambda: THIEF in here.guard.banned(), "the ban")
    return THIEF in here.guard.banned()


def figures(_: Path | None) -> Iterator[Figure]:
    """Measure, and yield the rows."""
    for name, release, port, backend in WAYS:
        yield from _rows(f"{name}, {backend}", lived(release, port, backend))


def _wrong(day: Day) -> str:
    """Return the steps of ``day`` with a wrong status, each with the number of each status (0: no answer)."""
    return "".join(f"; went wrong: {step}: {dict(Counter(ends))}" for step, ends in day.wrong.items())


def _rows(where: str, found: Suffered) -> Iterator[Figure]:
    asked = sum(day.requests for day in found.days)
    control = "" if found.works else "; but a thief from abroad is not banned"
    drops, wrong = found.drops, found.wrong
    strict = 'with `elsewhere = "block"` and `bare_address` enforced'
    cores = PLACED.replace("attacker", "phones")
    yield Figure(
        what=(
            "real phones (register, renew, mistype and correct it, subscribe, roam, "
            f"{OFFICE} behind one address that reboot at once) {strict}: bans, limiter drops: {where}"
        ),
        measured=f"{found.bans}, {drops} of {asked} requests{wrong}{control}",
        must="0, 0, and no step goes wrong",
        reached=(found.bans, drops, found.wrong) == (0, 0, "") and found.works,
        cores=cores,
    )
    month = found.month
    wrong = _wrong(month)
    yield Figure(
        what=(
            f"{len(_ON_THE_ROAD)} phones on the road, each day of a month in one of {PLACES} networks of "
            f"their country, {strict}: bans: {where}"
        ),
        measured=f"{found.cut}; {month.requests} requests{wrong}{control}",
        must="0, and no step goes wrong",
        reached=(found.cut, month.wrong) == (0, {}) and found.works,
        cores=cores,
    )
