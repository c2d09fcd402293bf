"""Bans and drops of phones that behave like real ones, with chan_sip and PJSIP, the limiter and the ration.

Every phone of the network does what phones do (:mod:`tests.support.phones`). There is no attack: each ban and
each dropped packet is a fault. All rules are on, and logins elsewhere and strangers
that ask for a bare address are banned too.
"""

from collections.abc import Iterator
from pathlib import Path

from attrs import frozen
from tests.bench.figures import Figure
from tests.bench.testbed import PLACED, bed
from tests.support.phones import NAME, OFFICE, Day, a_day, configured

DAYS = 3
WAYS = (
    ("chan_sip of Asterisk 16", "16", 5060, "nftables"),
    ("PJSIP of Asterisk 16", "16", 5080, "ipset"),
    ("PJSIP of Asterisk 22", "22", 5060, "ipset"),
    ("PJSIP of Asterisk 22", "22", 5060, "nftables"),
)


@frozen
class Suffered:
    """The actions of phones on one Asterisk, and the bans and drops."""

    days: tuple[Day, ...]
    bans: int
    drops: int

    @property
    def wrong(self) -> list[str]:
        """The steps with a wrong status."""
        return [step for day in self.days for step in day.wrong]


def lived(release: str, port: int, backend: str) -> Suffered:
    """Run the phones several times with a daemon that does not know them at first."""
    firewall = {"backend": backend, "limit": {"mode": "enforce"}, "ration": {"asking": "enforce"}}
    block, bare = {"elsewhere": "block"}, {"mode": "enforce", "domains": [NAME]}
    extra = configured(release)
    with bed(release=release, extra=extra, firewall=firewall, account=block, bare_address=bare) as here:
        days = tuple(a_day(here.lab, f"198.19.{90 + day}", port, NAME) for day in range(DAYS))
        return Suffered(days, len(here.guard.bans()), here.guard.status()["limiter_drops"])


def figures(_: Path | None) -> Iterator[Figure]:
    """Measure, and yield the rows."""
    for name, release, port, backend in WAYS:
        yield _row(f"{name}, {backend}", lived(release, port, backend))


def _row(where: str, found: Suffered) -> Figure:
    asked = sum(day.requests for day in found.days)
    drops, wrong = found.drops, f"; went wrong: {', '.join(found.wrong)}" if found.wrong else ""
    return Figure(
        what=(
            "real phones (register, renew, mistype and correct it, subscribe, roam, "
            f"{OFFICE} behind one address that reboot at once): bans, limiter drops: {where}"
        ),
        measured=f"{found.bans}, {drops} of {asked} requests{wrong}",
        must="0, 0, and no step goes wrong",
        reached=(found.bans, drops, found.wrong) == (0, 0, []),
        cores=PLACED.replace("attacker", "phones"),
    )
