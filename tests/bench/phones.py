"""What phones suffer: the ways of real ones in the laboratory, by chan_sip and PJSIP, the limiter enforcing.

Every phone of the network does what phones do (:mod:`tests.support.phones`), and nobody attacks: whatever is
banned or dropped is a fault.
"""

import tempfile
from pathlib import Path

from attrs import frozen
from tests.bench.figures import Figure
from tests.support.guarded import guarded
from tests.support.lab import Lab
from tests.support.phones import OFFICE, Day, a_day, configured

DAYS = 3
WAYS = (
    ("chan_sip of Asterisk 16", "16", 5060, "nftables"),
    ("PJSIP of Asterisk 16", "16", 5080, "ipset"),
    ("PJSIP of Asterisk 22", "22", 5060, "ipset"),
    ("PJSIP of Asterisk 22", "22", 5060, "nftables"),
)


@frozen
class Suffered:
    """What phones did on one Asterisk, and what came of it."""

    days: tuple[Day, ...]
    bans: int
    drops: int

    @property
    def wrong(self) -> list[str]:
        """The steps that did not end as they should."""
        return [step for day in self.days for step in day.wrong]


def lived(release: str, port: int, backend: str) -> Suffered:
    """Let phones live for some days beside a daemon that has never met them."""
    firewall = {"backend": backend, "limit": {"mode": "enforce"}}
    with (
        Lab.made(release, configured(release)) as lab,
        tempfile.TemporaryDirectory() as folder,
        guarded(lab, Path(folder), firewall=firewall) as guard,
    ):
        days = tuple(a_day(lab, f"198.19.{90 + day}", port) for day in range(DAYS))
        return Suffered(days, len(guard.bans()), guard.status()["limiter_drops"])


def figures(_: Lab, __: Path | None) -> list[Figure]:
    """Measure, and give the rows."""
    return [
        _row(f"{name}, {backend}", lived(release, port, backend)) for name, release, port, backend in WAYS
    ]


def _row(where: str, found: Suffered) -> Figure:
    asked = sum(day.requests for day in found.days)
    drops, wrong = found.drops, f"; went wrong: {', '.join(found.wrong)}" if found.wrong else ""
    return Figure(
        what=(
            "real phones (register, renew, mistype and correct it, subscribe, roam, "
            f"{OFFICE} behind one address that reboot at once): bans, limiter drops: {where}"
        ),
        measured=f"{found.bans}, {drops} of {asked} requests{wrong}",
        must="0, 0",
        reached=(found.bans, drops, found.wrong) == (0, 0, []),
    )
